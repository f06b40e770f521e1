"""From input paths to output paths, in all the forms that GOMIN's own program takes.

Nothing here touches a file; only links to folders are followed, to see whether two paths are one.

What an input argument stands for is looked up in `listing.py`; this module decides what is done with each file, and
where the result goes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from gomin_client.errors import UsageError
from gomin_client.files import formats
from gomin_client.files.formats import AUDIO, MEL

STREAM = Path("-")  # standard input or output

ANALYZE, SYNTHESIZE, RECONSTRUCT = "analyze", "synthesize", "reconstruct"
TASKS = {(AUDIO, MEL): ANALYZE, (MEL, AUDIO): SYNTHESIZE, (AUDIO, AUDIO): RECONSTRUCT}


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        path: the file; `STREAM` for standard input.
        folder: its folder below the directory, or the fixed part of the pattern, that it was found under.
        matched: what the "*" in the pattern's name stood for; None where there was none.
        searched: whether it was found in a directory or by a pattern, not named.
    """

    path: Path
    folder: PurePath = field(default_factory=PurePath)
    matched: str | None = None
    searched: bool = False

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return "stdin" if self.path == STREAM else self.path.stem


@dataclass(frozen=True)
class Job:
    """One file to make of another.

    Attributes:
        source: the input file.
        target: the output file.
        task: `ANALYZE`, `SYNTHESIZE` or `RECONSTRUCT`.
    """

    source: Path
    target: Path
    task: str


@dataclass(frozen=True)
class Naming:
    """How outputs are named where the command line leaves it open.

    Attributes:
        extension: of outputs whose name is not given, say ".wav".
        label: added to the name of an output beside its input, if that has the same kind of content: a_LABEL.wav.
        task: the task that every job must be, or None for whatever the extensions say.
    """

    extension: str
    label: str
    task: str | None = None


def plan(sources: Sequence[Source], outputs: Sequence[str], naming: Naming) -> list[Job]:
    """Choose a task and an output file for every input.

    Args:
        sources: the input files, in order.
        outputs: none, for files beside their inputs; a directory, in which the inputs' subfolders are kept; a pattern,
            DIR/**/NAME*.EXT keeps subfolders, DIR/NAME*.EXT does not; or as many files as there are inputs; "-" for
            standard output.
        naming: what the outputs do not say.

    Returns:
        One job for each source. Where two results would get one name, or one that of an input, all but one keep their
        input's extension in the name: a.mp3 becomes a.mp3.wav where a.wav is taken.

    Raises:
        UsageError: counts that differ, a mel to be made into a mel, an extension that cannot be read or written, one
            file given for two results.
    """
    sources = _without_results(sources, outputs, naming)
    if not sources:
        raise UsageError("no input files")
    literal = len(outputs) > 1 or (len(outputs) == 1 and _is_file(outputs[0]))
    if literal and len(outputs) != len(sources):
        raise UsageError(f"there are {len(sources)} inputs and {len(outputs)} outputs: give one output for each input")
    if literal:
        targets = [Path(output) for output in outputs]
    elif outputs:
        targets = [_by_pattern(source, *_split(outputs[0], naming.extension)) for source in sources]
    else:
        targets = [_beside(source, naming) for source in sources]
    tasks = [_task(source, target, naming) for source, target in zip(sources, targets, strict=True)]
    inputs = {_key(source.path): source.path for source in sources if source.path != STREAM}
    taken: dict[str, Path] = {}
    jobs: dict[int, Job] = {}
    # of several that would get one name, the one that has its extension already comes first
    own = [source.path.suffix.lower() == target.suffix.lower() for source, target in zip(sources, targets, strict=True)]
    for index in sorted(range(len(sources)), key=lambda index: not own[index]):
        source, target, task = sources[index], targets[index], tasks[index]
        if target == STREAM:
            if len(sources) > 1:
                raise UsageError("only one result can be written to standard output")
        elif literal:
            _require_free(source.path, target, inputs, taken)
        else:
            while _key(target) in inputs or _key(target) in taken:
                target = target.with_name(f"{target.stem}{source.path.suffix or '.stdin'}{target.suffix}")
        taken[_key(target)] = source.path
        jobs[index] = Job(source.path, target, task)
    return [jobs[index] for index in range(len(sources))]


def check_extra(path: Path, jobs: Sequence[Job], extension: str) -> None:
    """Refuse one more file to write, such as a picture, that is an input or an output, or misnamed.

    Raises:
        UsageError: the file would overwrite another, or has another extension.
    """
    if path.suffix.lower() != extension:
        raise UsageError(f"{path}: expected a file name that ends with {extension}")
    if _key(path) in {_key(other) for job in jobs for other in (job.source, job.target)}:
        raise UsageError(f"{path} is an input or an output; choose another name")


def matched_part(name: str, pattern: str) -> str | None:
    """What the "*" in a pattern's name stands for in a name that it matches, extensions left out.

    Args:
        name: for example "input12.wav".
        pattern: for example "input*.wav"; None with none or several "*".
    """
    stem = PurePath(name).stem
    before, star, after = PurePath(pattern).stem.partition("*")
    if not star or any(sign in before + after for sign in "*?["):
        return None
    if len(stem) >= len(before) + len(after) and stem.startswith(before) and stem.endswith(after):
        return stem[len(before) : len(stem) - len(after)]
    return None


def _without_results(sources: Sequence[Source], outputs: Sequence[str], naming: Naming) -> list[Source]:
    """The inputs, but for those that a search found and that an earlier run of the same command made.

    That is what lies beside its input under the name that it would be given there, or below an output directory inside
    the directory that was searched. So a command can be repeated, and gone on with.
    """
    if not outputs:
        made = {_key(_beside(source, naming)) for source in sources if source.path != STREAM}
        return [source for source in sources if not (source.searched and _key(source.path) in made)]
    if len(outputs) > 1 or _is_file(outputs[0]):
        return list(sources)
    below = os.path.realpath(_split(outputs[0], naming.extension)[0])

    def is_result(source: Source) -> bool:
        # the folder that was searched, by steps up: through links, the real path need not lead there
        root = os.path.realpath(os.path.join(source.path.parent, *[".."] * len(source.folder.parts)))
        inside = Path(below) in Path(_key(source.path)).parents
        return source.searched and inside and Path(root) in Path(below).parents

    return [source for source in sources if not is_result(source)]


def _is_file(output: str) -> bool:
    """Whether an output argument names one file: not a directory, not a pattern."""
    return output == "-" or not ("*" in output or output.endswith(("/", os.sep)) or not PurePath(output).suffix)


def _split(output: str, extension: str) -> tuple[Path, bool, str, str]:
    """A directory or pattern -> directory, whether subfolders are kept, what stands before and after the "*" of names.

    Raises:
        UsageError: a "*" where none can stand.
    """
    if "*" not in output:
        return Path(output), True, "", extension
    folder, _, name = output.rpartition("/")
    if name == "**":
        folder, name = output, "*"
    directory, _, deep = folder.partition("**") if "**" in folder else (folder, "", "")
    before, star, after = name.partition("*")
    if deep.strip("/") or "*" in directory or not star or "*" in after.removesuffix(".*"):
        raise UsageError(
            f"output {output!r}: expected a pattern such as out/*.wav, out/rec_*.wav, or out/**/*.wav, which keeps "
            "subfolders"
        )
    suffix = PurePath(f"x{after}").suffix
    if suffix in ("", ".*"):
        after = after.removesuffix(".*") + extension
    return Path(directory or ("/" if output.startswith("/") else ".")), "**" in folder, before, after


def _by_pattern(source: Source, directory: Path, keep_folders: bool, before: str, after: str) -> Path:
    # "*" alone stands for the whole name, as in GOMIN's own program; with something beside it, for what matched
    plain = not before and not PurePath(f"x{after}").stem[1:]
    name = source.stem if plain or source.matched is None else source.matched
    return directory / (source.folder if keep_folders else PurePath()) / f"{before}{name}{after}"


def _beside(source: Source, naming: Naming) -> Path:
    if source.path == STREAM:
        return STREAM
    read, written = formats.to_read(source.path), formats.of(PurePath(f"x{naming.extension}"))
    same = read is not None and written is not None and read.kind == written.kind
    label = f"_{naming.label.replace('/', '_')}" if same else ""
    return source.path.with_name(f"{source.stem}{label}{naming.extension}")


def _task(source: Source, target: Path, naming: Naming) -> str:
    """What turns the one file into the other, by their extensions; streams are what the command says."""
    expected = next((kinds for kinds, task in TASKS.items() if task == naming.task), None)
    default = formats.of(PurePath(f"x{naming.extension}"))
    read = _kind(source.path, "read", expected[0] if expected else AUDIO)
    written = _kind(target, "write", expected[1] if expected else default.kind if default is not None else AUDIO)
    task = TASKS.get((read, written))
    if task is None:
        raise UsageError(f"{source.path} -> {target}: both are mel files; there is nothing to do between mels")
    if naming.task not in (None, task):
        raise UsageError(f"{source.path} -> {target}: that is to {task}, from {read} to {written}; use that command")
    return task


def _kind(path: Path, verb: str, of_streams: str) -> str:
    if path == STREAM:
        return of_streams
    found = formats.to_read(path) if verb == "read" else formats.to_write(path)
    if found is None:
        what = f"{path.suffix} files" if path.suffix else "files without extension"
        known = formats.readable() if verb == "read" else formats.writable()
        raise UsageError(f"{path}: cannot {verb} {what}; known are {', '.join(known)}")
    return found.kind


def _require_free(source: Path, target: Path, inputs: Mapping[str, Path], taken: Mapping[str, Path]) -> None:
    if _key(target) in inputs:
        raise UsageError(f"{source} would be written to {target}, which is an input; choose another output")
    if _key(target) in taken:
        raise UsageError(f"{taken[_key(target)]} and {source} would both be written to {target}")


def _key(path: Path) -> str:
    """Equal for two spellings of one path, through links to folders too. A link to a file is a file of its own."""
    return os.path.join(os.path.realpath(path.parent), path.name)
