"""The input files that arguments stand for: a file, a folder, a pattern, a list in a text file, or standard input."""

from __future__ import annotations

import codecs
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from glob import has_magic
from pathlib import Path, PurePath

from gomin_client.batch.search import Search
from gomin_client.errors import UsageError
from gomin_client.files import formats
from gomin_client.files.atomic import is_special

STREAM = Path("-")  # standard input or output


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        path: the file; `STREAM` for standard input.
        folder: its folder relative to the searched folder, or to the fixed part of the pattern.
        matched: the part of its name that the "*" of a pattern matched; None if there was no pattern with one "*".
        searched: whether it was found in a folder or by a pattern, instead of being named.
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
class Found:
    """The input files, and what a search passed on the way to them.

    Attributes:
        sources: the input files, each once, in a fixed order.
        left_out: files in searched folders that no format reads, or not of the kind that was asked for.
        problems: folders that could not be searched, and why, one message each.
    """

    sources: list[Source]
    left_out: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_sources(arguments: Sequence[str], kinds: Sequence[str]) -> Found:
    """The input files that arguments stand for.

    Args:
        arguments: each of them a file; a folder, which is searched with its subfolders; a pattern with "*", "?", "[…]",
            or "**" for any subfolders; a .txt file with one path per line; or "-" for standard input.
        kinds: the kinds of files that are looked for in folders and by patterns without an extension, `formats.AUDIO`
            and `formats.MEL`.

    Raises:
        UsageError: a folder or pattern without files, a list that cannot be read, standard input with other inputs, an
            empty argument.
    """
    if "-" in arguments and len(arguments) > 1:
        raise UsageError("standard input (-) must be the only input")
    real_folder.cache_clear()
    sources: list[Source] = []
    named: list[Path] = []
    left_out: list[Path] = []
    problems: list[str] = []
    for argument in arguments:
        check_argument(argument)
        if argument == "-":
            found = Found([Source(STREAM)])
        elif os.path.isdir(argument) and not _is_named_like_a_file(argument):
            found = _in_folder(argument, kinds)
        elif _is_pattern(argument):
            found = _by_pattern(argument, kinds)
        else:
            paths = read_list(argument) if is_list(argument) else [Path(argument)]
            named += paths
            found = Found([Source(path) for path in paths])
        sources += found.sources
        left_out += found.left_out
        problems += found.problems
    for source in sources:
        if "\0" in str(source.path) or not source.path.name:
            raise UsageError(f"path {str(source.path)!r}: is not a file; is the list that names it a text file?")
    return Found(_once(list(_under_common_folder(sources, named))), sorted(set(left_out)), problems)


def check_argument(argument: str) -> None:
    """Refuse an argument that cannot be a path.

    Raises:
        UsageError: it is empty or contains a zero byte.
    """
    if not argument or "\0" in argument:
        raise UsageError(f"path {argument!r}: expected a file, a folder or a pattern")


def is_list(argument: str) -> bool:
    """Whether an argument is the name of a list of files."""
    return argument.lower().endswith(".txt")


def read_list(argument: str) -> list[Path]:
    """The paths in a text file, one per line; in UTF-8, except names of other bytes, or in UTF-16 with its mark.

    Raises:
        UsageError: the file is missing, cannot be read, or lists nothing.
    """
    try:
        content = Path(argument).read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{argument}: no such list of files") from None
    except OSError as error:
        raise UsageError(f"{argument}: cannot be read as a list of files: {error.strerror}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as PowerShell writes it
        lines = content.decode("utf-16", "replace").splitlines()
    else:
        lines = content.decode("utf-8-sig", "surrogateescape").splitlines()
    paths = [Path(line.strip()) for line in lines if line.strip()]
    if not paths:
        raise UsageError(f"{argument}: lists no files")
    return paths


def matched_part(name: str, pattern: str) -> str | None:
    """The part of a name that the "*" of a pattern matched, without extensions.

    Args:
        name: for example "input12.wav".
        pattern: for example "input*.wav", which matches the name; None is returned for none or several "*".
    """
    stem = PurePath(name).stem
    before, star, after = PurePath(pattern).stem.partition("*")
    if not star or has_magic(before + after):
        return None
    if len(stem) >= len(before) + len(after) and stem.startswith(before) and stem.endswith(after):
        return stem[len(before) : len(stem) - len(after)]
    return None


def _is_named_like_a_file(argument: str) -> bool:
    """Whether a folder is named x.wav, say: taken for a file, and reported as such."""
    return formats.to_read(PurePath(argument)) is not None and not argument.endswith(("/", os.sep))


def _is_pattern(argument: str) -> bool:
    """Whether to expand an argument: it has wildcards, and is not itself the name of a file."""
    return has_magic(argument) and not os.path.lexists(argument)


def _is_of(path: PurePath, kinds: Sequence[str]) -> bool:
    found = formats.to_read(path)
    return found is not None and found.kind in kinds


def _under_common_folder(found: Sequence[Source], named: Sequence[Path]) -> Iterator[Source]:
    """The sources; those that were named one by one get their folders relative to the folder that contains all."""
    try:
        common = os.path.commonpath([path.parent for path in named]) if named else ""
    except ValueError:  # relative and absolute paths, or several drives
        common = None
    names = set(named)
    for source in found:
        if source.path in names and common is not None and source.folder == PurePath():
            folder = PurePath(os.path.relpath(source.path.parent, common or "."))
            yield Source(source.path, PurePath() if ".." in folder.parts else folder, source.matched)
        else:
            yield source


def _once(sources: Sequence[Source]) -> list[Source]:
    """The sources without repetitions: a path that was named again, and a file that a search found by two paths."""
    named = {os.path.abspath(source.path): source for source in reversed(sources) if not source.searched}
    real = {real_path(source.path) for source in named.values()}
    once = []
    for source in sources:
        if not source.searched:
            if named.get(os.path.abspath(source.path)) is source:
                once.append(source)
        elif (path := real_path(source.path)) not in real:
            real.add(path)
            once.append(source)
    return once


def _in_folder(argument: str, kinds: Sequence[str]) -> Found:
    search, root = Search(), PurePath(argument)
    wanted: list[Path] = []
    others: list[Path] = []
    for path in map(Path, search.in_folder(argument)):
        (wanted if _is_of(path, kinds) else others).append(path)
    found = _found(search, root, wanted, others)
    if not found.sources:
        raise UsageError(f"{argument}: contains no {' or '.join(kinds)} files{_instead(found)}")
    return found


def _by_pattern(pattern: str, kinds: Sequence[str]) -> Found:
    search, root, name = Search(), _fixed_folder(pattern), PurePath(pattern).name
    any_extension = PurePath(name).suffix in ("", ".*")
    wanted: list[Path] = []
    others: list[Path] = []
    for path in map(Path, search.by_pattern(pattern)):
        is_wanted = _is_of(path, kinds) or (not any_extension and not os.path.isdir(path))
        (wanted if is_wanted else others).append(path)
    found = _found(search, root, wanted, others)
    if not found.sources:
        advice = f"; a literal [ is written [[], as in {pattern.replace('[', '[[]')!r}" if "[" in pattern else ""
        raise UsageError(f"{pattern}: matches no {' or '.join(kinds)} files{_instead(found)}{advice}")
    named = [replace(source, matched=matched_part(source.path.name, name)) for source in found.sources]
    return replace(found, sources=named)


def _found(search: Search, root: PurePath, wanted: Sequence[Path], others: Sequence[Path]) -> Found:
    """What a search found: of several paths to one file, the first that leads through no link, or the first."""
    real_root = os.path.realpath(root)
    special = [path for path in wanted if is_special(path)]
    chosen: dict[str, Path] = {}
    for path in wanted:
        real = real_path(path)
        if real not in chosen or real == os.path.join(real_root, path.relative_to(root)):
            chosen[real] = path
    once = set(chosen.values()).difference(special)
    sources = [Source(path, PurePath(path.parent.relative_to(root)), searched=True) for path in wanted if path in once]
    dangling = [path for path in others if os.path.islink(path) and not os.path.exists(path)]
    problems = [f"{path}: is a link to a file or folder that does not exist" for path in dangling]
    left_out = {
        real_path(path): path for path in [*others, *special] if os.path.exists(path) and not os.path.isdir(path)
    }
    return Found(sources, list(left_out.values()), [*search.problems, *problems])


def _instead(found: Found) -> str:
    """What a search found instead of files to read, for an error message."""
    has = f"; {left_out_files(found.left_out)}" if found.left_out else ""
    return "".join([has, *(f"; {problem}" for problem in found.problems[:1])])


def left_out_files(paths: Sequence[Path]) -> str:
    """The number of files that are not read, and their extensions: "3 files left out: .m4a, .txt"."""
    extensions = sorted({path.suffix.lower() or "no extension" for path in paths})
    return f"{len(paths)} {'file' if len(paths) == 1 else 'files'} left out: {', '.join(extensions)}"


def _fixed_folder(pattern: str) -> PurePath:
    """The folder that all matches of a pattern are in: its parts before the first that has wildcards."""
    fixed = []
    for part in PurePath(pattern).parts[:-1]:
        if has_magic(part):
            break
        fixed.append(part)
    return PurePath(*fixed)


@functools.lru_cache(maxsize=4096)
def real_folder(folder: Path) -> str:
    """The path of a folder without links. Remembered: searches and plans begin with `real_folder.cache_clear()`."""
    return os.path.realpath(folder)


def real_path(path: Path) -> str:
    """The path of a file without links: equal for two paths to one file. A path that cannot be looked up has none."""
    return os.path.realpath(path) if os.path.islink(path) else os.path.join(real_folder(path.parent), path.name)
