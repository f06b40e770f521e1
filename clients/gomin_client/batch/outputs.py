"""From input files to jobs: the task and the output file of each, in all the forms that GOMIN's own program takes.

Nothing here touches a file; only links to folders are followed, to see whether two paths are one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from gomin_client.batch.inputs import (
    STREAM,
    Source,
    check_argument,
    find_sources,
    is_list,
    left_out_files,
    read_list,
    real_folder,
)
from gomin_client.errors import UsageError
from gomin_client.files import formats
from gomin_client.files.atomic import is_special
from gomin_client.files.formats import AUDIO, MEL

ANALYZE, SYNTHESIZE, RECONSTRUCT = "analyze", "synthesize", "reconstruct"
_TASKS = {(AUDIO, MEL): ANALYZE, (MEL, AUDIO): SYNTHESIZE, (AUDIO, AUDIO): RECONSTRUCT}
_STREAMS = ("/dev/std", "/dev/fd/", "/proc/self/fd/")  # as >(…) is given
_KINDS = {task: kinds for kinds, task in _TASKS.items()}


@dataclass(frozen=True)
class FileJob:
    """One file to make from another.

    Attributes:
        source: the input file; `STREAM` for standard input.
        target: the output file; `STREAM` for standard output.
        task: `ANALYZE`, `SYNTHESIZE` or `RECONSTRUCT`.
    """

    source: Path
    target: Path
    task: str


@dataclass(frozen=True)
class Naming:
    """The names of outputs, as far as the command line does not give them.

    Attributes:
        extension: the extension of outputs whose name is not given, say ".wav"; of a format that can be written.
        label: added to the name of an output beside its input, if both have the same kind of content: a_LABEL.wav.
        task: the task that every job must have; None for the task that the extensions imply.
    """

    extension: str
    label: str
    task: str | None = None

    @property
    def kind(self) -> str:
        """The kind of content of outputs whose name is not given."""
        found = formats.of(PurePath(f"x{self.extension}"))
        return AUDIO if found is None else found.kind


@dataclass(frozen=True)
class BatchPlan:
    """The jobs of a batch, and what the search for their inputs passed.

    Attributes:
        jobs: one for each input, in order.
        left_out: files in searched folders that are neither inputs nor outputs.
        problems: folders that could not be searched, and why, one message each.
    """

    jobs: list[FileJob]
    left_out: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def require_all(self) -> None:
        """Refuse a plan that leaves files out.

        Raises:
            UsageError: it does, or a folder could not be searched.
        """
        passed = [f"{left_out_files(self.left_out)} ({self.left_out[0]} …)"] if self.left_out else []
        if passed or self.problems:
            raise UsageError(f"--strict: {'; '.join([*passed, *self.problems])}")


def plan_batch(inputs: Sequence[str], outputs: Sequence[str], kinds: Sequence[str], naming: Naming) -> BatchPlan:
    """Find the inputs, and plan a job for each.

    Args:
        inputs: arguments, see `find_sources`.
        outputs: arguments, see `find_outputs`.
        kinds: see `find_sources`.
        naming: see `plan_jobs`.

    Raises:
        UsageError: see `find_sources`, `find_outputs` and `plan_jobs`.
    """
    found = find_sources(inputs, kinds)
    jobs = plan_jobs(found.sources, find_outputs(outputs), naming)
    written = {_key(job.target) for job in jobs}
    return BatchPlan(jobs, [path for path in found.left_out if _key(path) not in written], found.problems)


def find_outputs(arguments: Sequence[str]) -> list[str]:
    """The outputs that arguments stand for, in the forms that `plan_jobs` takes: lists in .txt files are read.

    Raises:
        UsageError: a list that cannot be read; an empty argument; a pipe or a device.
    """
    outputs: list[str] = []
    for argument in arguments:
        check_argument(argument)
        if argument.startswith(_STREAMS) or is_special(Path(argument)):
            raise UsageError(f"{argument}: is not a file; write to standard output, -, and redirect that")
        if is_list(argument):
            outputs += [str(path) for path in read_list(argument)]
        else:
            is_folder = os.path.isdir(argument) and not argument.endswith(("/", os.sep))
            outputs.append(f"{argument}/" if is_folder else argument)
    return outputs


def plan_jobs(sources: Sequence[Source], outputs: Sequence[str], naming: Naming) -> list[FileJob]:
    """Choose a task and an output file for every input.

    Args:
        sources: the input files, in order.
        outputs: none, for files beside their inputs; a folder, in which the inputs' subfolders are kept; a pattern,
            DIR/**/NAME*.EXT keeps subfolders, DIR/NAME*.EXT does not; or one output for each input; "-" for standard
            output.
        naming: what the outputs leave open.

    Returns:
        One job for each source, in order. If two results would get one name, or one of them the name of an input, all
        but one keep their input's extension in the name: a.mp3 becomes a.mp3.wav if a.wav is taken.

    Raises:
        UsageError: counts that differ, a mel to be made into a mel, an extension that cannot be read or written, one
            file given for two results.
    """
    real_folder.cache_clear()
    sources = _without_results(sources, outputs, naming)
    if not sources:
        raise UsageError("no input files")
    named = len(outputs) > 1 or (len(outputs) == 1 and _is_file(outputs[0]))
    if named and len(outputs) != len(sources):
        raise UsageError(f"there are {len(sources)} inputs and {len(outputs)} outputs: give one output for each input")
    if named:
        targets = [Path(output) for output in outputs]
    elif outputs:
        pattern = _OutputPattern.parse(outputs[0], naming.extension)
        targets = [pattern.path(source) for source in sources]
    else:
        targets = [_beside(source, naming) for source in sources]
    tasks = [_task(source, target, naming) for source, target in zip(sources, targets, strict=True)]
    targets = _distinct(sources, targets, named=named)
    jobs = zip(sources, targets, tasks, strict=True)
    return [FileJob(source.path, target, task) for source, target, task in jobs]


def check_extra_outputs(paths: Iterable[Path], jobs: Sequence[FileJob]) -> None:
    """Refuse more files to write, such as plots, that are inputs or outputs.

    Raises:
        UsageError: a file would overwrite another.
    """
    taken = {_key(other) for job in jobs for other in (job.source, job.target)}
    for path in paths:
        if _key(path) in taken:
            raise UsageError(f"{path} is an input or an output; choose another name")


def _without_results(sources: Sequence[Source], outputs: Sequence[str], naming: Naming) -> list[Source]:
    """The inputs without those that a search found and that an earlier run of the same command made.

    Such a file is beside its input under the name that it would be given there, or below an output folder inside the
    folder that was searched. So a command can be repeated and resumed.
    """
    if not outputs:
        made = {_key(_beside(source, naming)) for source in sources if source.path != STREAM}
        return [source for source in sources if not (source.searched and _key(source.path) in made)]
    if len(outputs) > 1 or _is_file(outputs[0]):
        return list(sources)
    below = os.path.realpath(_OutputPattern.parse(outputs[0], naming.extension).folder)

    def is_result(source: Source) -> bool:
        # the folder that was searched, by steps up: through links, the real path need not lead there
        root = real_folder(Path(source.path.parent, *[".."] * len(source.folder.parts)))
        inside = Path(below) in Path(_key(source.path)).parents
        return source.searched and inside and Path(root) in Path(below).parents

    return [source for source in sources if not is_result(source)]


def _is_file(output: str) -> bool:
    """Whether an output argument names one file: not a folder, not a pattern."""
    return output == "-" or not ("*" in output or output.endswith(("/", os.sep)) or not PurePath(output).suffix)


@dataclass(frozen=True)
class _OutputPattern:
    """A folder or pattern that outputs are named by.

    Attributes:
        folder: the folder that all outputs are in.
        keeps_subfolders: whether the inputs' subfolders are kept.
        before: the part of names before the "*".
        after: the part of names after the "*", with the extension.
    """

    folder: Path
    keeps_subfolders: bool
    before: str
    after: str

    @classmethod
    def parse(cls, output: str, extension: str) -> _OutputPattern:
        """Read an output argument.

        Raises:
            UsageError: a "*" in a place that has no meaning.
        """
        if "*" not in output:
            return cls(Path(output), True, "", extension)
        folder, _, name = output.rpartition("/")
        if name == "**":
            folder, name = output, "*"
        fixed, _, deep = folder.partition("**") if "**" in folder else (folder, "", "")
        before, star, after = name.partition("*")
        if deep.strip("/") or "*" in fixed or not star or "*" in after.removesuffix(".*"):
            raise UsageError(
                f"output {output!r}: expected a pattern such as out/*.wav, out/rec_*.wav, or out/**/*.wav, which keeps "
                "subfolders"
            )
        if PurePath(f"x{after}").suffix in ("", ".*"):
            after = after.removesuffix(".*") + extension
        return cls(Path(fixed or ("/" if output.startswith("/") else ".")), "**" in folder, before, after)

    def path(self, source: Source) -> Path:
        """The output of an input."""
        # "*" alone stands for the whole name, as in GOMIN's own program; "NAME*" for the part that matched
        alone = not self.before and not PurePath(f"x{self.after}").stem[1:]
        name = source.stem if alone or source.matched is None else source.matched
        folder = self.folder / source.folder if self.keeps_subfolders else self.folder
        return folder / f"{self.before}{name}{self.after}"


def _beside(source: Source, naming: Naming) -> Path:
    """The output beside an input."""
    if source.path == STREAM:
        return STREAM
    read = formats.to_read(source.path)
    same = read is not None and read.kind == naming.kind
    label = f"_{naming.label.replace('/', '_')}" if same else ""
    return source.path.with_name(f"{source.stem}{label}{naming.extension}")


def _task(source: Source, target: Path, naming: Naming) -> str:
    """The task that makes the one file from the other, by their extensions; streams are what the command says."""
    read, written = _KINDS[naming.task] if naming.task else (AUDIO, naming.kind)
    readable, writable = (
        (formats.readable(read), formats.writable(written)) if naming.task else (formats.readable(), formats.writable())
    )
    if source.path != STREAM:
        read = _kind(source.path, formats.to_read(source.path), f"read {_what(source.path)}", readable)
    if target != STREAM:
        written = _kind(target, formats.to_write(target), f"write {_what(target)}", writable)
    task = _TASKS.get((read, written))
    if task is None:
        raise UsageError(f"{source.path} -> {target}: both are mel files; there is nothing to do between mels")
    if naming.task not in (None, task):
        raise UsageError(f"{source.path} -> {target}: use the command {task}, which makes {written} from {read}")
    return task


def _kind(path: Path, found: formats.Format | None, action: str, known: Sequence[str]) -> str:
    if found is None and str(path).startswith(_STREAMS):  # of <(…), too
        raise UsageError(f"{path}: is not a file; pass a pipe as standard input, -")
    if found is None:
        raise UsageError(f"{path}: cannot {action}; known are {', '.join(known)}")
    return found.kind


def _what(path: Path) -> str:
    return f"{path.suffix} files" if path.suffix else "files without extension"


def _distinct(sources: Sequence[Source], targets: Sequence[Path], *, named: bool) -> list[Path]:
    """The targets, each of its own and none of them an input.

    Args:
        sources: the input files.
        targets: the output of each.
        named: the outputs were named one by one: a collision is an error, instead of a longer name.
    """
    inputs = {_key(source.path): source.path for source in sources if source.path != STREAM}
    taken: dict[str, Path] = {}
    chosen: dict[int, Path] = {}

    def has_the_extension(index: int) -> bool:
        return sources[index].path.suffix.lower() == targets[index].suffix.lower()

    # of several that would get one name, the one whose input has its extension keeps it
    for index in sorted(range(len(sources)), key=has_the_extension, reverse=True):
        source, target = sources[index].path, targets[index]
        if target == STREAM:
            if len(sources) > 1:
                raise UsageError("only one result can be written to standard output")
        elif named:
            _require_free(source, target, inputs, taken)
        else:
            while _key(target) in inputs or _key(target) in taken:
                target = target.with_name(f"{target.stem}{source.suffix or '.stdin'}{target.suffix}")
        taken[_key(target)] = source
        chosen[index] = target
    return [chosen[index] for index in range(len(sources))]


def _require_free(source: Path, target: Path, inputs: Mapping[str, Path], taken: Mapping[str, Path]) -> None:
    if _key(target) in inputs:
        raise UsageError(f"{source} would be written to {target}, which is an input; choose another output")
    if _key(target) in taken:
        raise UsageError(f"{taken[_key(target)]} and {source} would both be written to {target}")


def _key(path: Path) -> str:
    """Equal for two spellings of one path, through links to folders too. A link to a file is a file of its own."""
    return os.path.join(real_folder(path.parent), path.name)
