"""The input files that arguments stand for: a file, a folder, a pattern, a list in a text file, or standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from gomin_client.errors import UsageError
from gomin_client.files import formats

STREAM = Path("-")  # standard input or output
WILDCARDS = "*?["


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


def find_sources(arguments: Sequence[str], kinds: Sequence[str]) -> list[Source]:
    """The input files that arguments stand for, each once, in a fixed order.

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
    found: list[Source] = []
    named: list[Path] = []
    for argument in arguments:
        check_argument(argument)
        if argument == "-":
            found.append(Source(STREAM))
        elif os.path.isdir(argument) and not _is_named_like_a_file(argument):
            found += _in_folder(argument, kinds)
        elif _is_pattern(argument):
            found += _by_pattern(argument, kinds)
        else:
            paths = read_list(argument) if is_list(argument) else [Path(argument)]
            named += paths
            found += [Source(path) for path in paths]
    for source in found:
        if "\0" in str(source.path) or not source.path.name:
            raise UsageError(f"path {str(source.path)!r}: is not a file; is the list that names it a text file?")
    once = {os.path.abspath(source.path): source for source in reversed(list(_under_common_folder(found, named)))}
    return list(reversed(once.values()))


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
    """The paths in a text file, one per line.

    Raises:
        UsageError: the file is missing, cannot be read, or lists nothing.
    """
    try:
        lines = Path(argument).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UsageError(f"{argument}: no such list of files") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{argument}: cannot be read as a list of files: {error}") from error
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
    if not star or _has_wildcards(before + after):
        return None
    if len(stem) >= len(before) + len(after) and stem.startswith(before) and stem.endswith(after):
        return stem[len(before) : len(stem) - len(after)]
    return None


def _has_wildcards(text: str) -> bool:
    return any(sign in text for sign in WILDCARDS)


def _is_named_like_a_file(argument: str) -> bool:
    """Whether a folder is named x.wav, say: taken for a file, and reported as such."""
    return formats.to_read(PurePath(argument)) is not None and not argument.endswith(("/", os.sep))


def _is_pattern(argument: str) -> bool:
    """Whether to expand an argument: it has wildcards, and is not itself the name of a file."""
    return _has_wildcards(argument) and not os.path.lexists(argument)


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


def _in_folder(argument: str, kinds: Sequence[str]) -> list[Source]:
    root = Path(argument)
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders.sort()
        # a folder or a dangling link that is named like a file is reported later, not skipped
        for name in sorted([*files, *subfolders]):
            if not name.startswith(".") and _is_of(PurePath(name), kinds):
                found.append(Source(Path(folder) / name, PurePath(folder).relative_to(root), searched=True))
    if not found:
        raise UsageError(f"{argument}: contains no {' or '.join(kinds)} files")
    return found


def _by_pattern(pattern: str, kinds: Sequence[str]) -> list[Source]:
    fixed = []
    for part in PurePath(pattern).parts[:-1]:
        if _has_wildcards(part):
            break
        fixed.append(part)
    root = PurePath(*fixed)
    name = PurePath(pattern).name
    any_extension = PurePath(name).suffix in ("", ".*")
    found = []
    for match in sorted(glob.glob(pattern, recursive=True)):
        path = Path(match)
        if _is_of(path, kinds) or (not any_extension and not path.is_dir()):
            folder = PurePath(path.parent).relative_to(root)
            found.append(Source(path, folder, matched_part(path.name, name), searched=True))
    if not found:
        raise UsageError(f"{pattern}: matches no {' or '.join(kinds)} files")
    return found
