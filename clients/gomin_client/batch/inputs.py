"""What an input argument stands for: a file, a directory, a pattern, a list in a text file, or standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from gomin_client.batch.outputs import STREAM, Source, matched_part
from gomin_client.errors import UsageError
from gomin_client.files import formats

_WILD = "*?["


def find_sources(arguments: Sequence[str], kinds: Sequence[str]) -> list[Source]:
    """The input files that arguments stand for, each once, in a fixed order.

    Args:
        arguments: each of them a file; a directory, searched through with its subfolders; a pattern with "*", "?",
            "[…]" or "**" for any subfolders; a .txt file with a path on each line; or "-" for standard input.
        kinds: what is looked for in directories and by patterns without an extension: `paths.AUDIO`, `paths.MEL`.

    Raises:
        UsageError: a directory or pattern without files, a list that cannot be read, standard input with other inputs,
            an empty argument.
    """
    if "-" in arguments and len(arguments) > 1:
        raise UsageError("standard input (-) must be the only input")
    found: list[Source] = []
    named: list[Path] = []
    for argument in arguments:
        _check(argument)
        if argument == "-":
            found.append(Source(STREAM))
        elif os.path.isdir(argument) and not _is_misnamed(argument):
            found += _in_directory(argument, kinds)
        elif _is_pattern(argument):
            found += _by_pattern(argument, kinds)
        else:
            paths = _in_list(argument) if argument.lower().endswith(".txt") else [Path(argument)]
            named += paths
            found += [Source(path) for path in paths]
    for source in found:
        if "\0" in str(source.path) or not source.path.name:
            raise UsageError(f"path {str(source.path)!r}: is no file; does a list name it that is no text file?")
    once = {os.path.abspath(source.path): source for source in reversed(list(_under_common_folder(found, named)))}
    return list(reversed(once.values()))


def find_outputs(arguments: Sequence[str]) -> list[str]:
    """What output arguments stand for, in the forms that `paths.plan` takes: lists in .txt files are read.

    Raises:
        UsageError: a list that cannot be read; an empty argument.
    """
    outputs: list[str] = []
    for argument in arguments:
        _check(argument)
        if argument.lower().endswith(".txt"):
            outputs += [str(path) for path in _in_list(argument)]
        else:
            directory = os.path.isdir(argument) and not argument.endswith(("/", os.sep))
            outputs.append(f"{argument}/" if directory else argument)
    return outputs


def _check(argument: str) -> None:
    if not argument or "\0" in argument:
        raise UsageError(f"path {argument!r}: expected a file, a directory or a pattern")


def _is_misnamed(argument: str) -> bool:
    """Whether a directory is named like a file, as x.wav: taken for one, and reported as such."""
    return formats.to_read(PurePath(argument)) is not None and not argument.endswith(("/", os.sep))


def _is_pattern(argument: str) -> bool:
    """Whether to expand an argument: it has wildcards, and is not itself the name of a file."""
    return any(sign in argument for sign in _WILD) and not os.path.lexists(argument)


def _under_common_folder(found: Sequence[Source], named: Sequence[Path]) -> Iterator[Source]:
    """Files that were named one by one keep their subfolders below the folder that all of them lie in."""
    try:
        common = os.path.commonpath([path.parent for path in named]) if named else ""
    except ValueError:  # relative and absolute ones, or several drives
        common = None
    names = set(named)
    for source in found:
        if source.path in names and common is not None and source.folder == PurePath():
            folder = PurePath(os.path.relpath(source.path.parent, common or "."))
            yield Source(source.path, PurePath() if ".." in folder.parts else folder, source.matched)
        else:
            yield source


def _in_directory(directory: str, kinds: Sequence[str]) -> list[Source]:
    root = Path(directory)
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders.sort()
        # a directory or a dangling link that is named like a file is reported later, not passed over
        for name in sorted([*files, *subfolders]):
            if not name.startswith(".") and _is_of(PurePath(name), kinds):
                path = Path(folder) / name
                found.append(Source(path, PurePath(folder).relative_to(root), searched=True))
    if not found:
        raise UsageError(f"{directory}: contains no {' or '.join(kinds)} files")
    return found


def _is_of(path: PurePath, kinds: Sequence[str]) -> bool:
    found = formats.to_read(path)
    return found is not None and found.kind in kinds


def _by_pattern(pattern: str, kinds: Sequence[str]) -> list[Source]:
    fixed = []
    for part in PurePath(pattern).parts[:-1]:
        if any(sign in part for sign in _WILD):
            break
        fixed.append(part)
    root = PurePath(*fixed)
    name = PurePath(pattern).name
    any_extension = PurePath(name).suffix in ("", ".*")
    found = []
    for match in sorted(glob.glob(pattern, recursive=True)):
        path = Path(match)
        if _is_of(path, kinds) or (not any_extension and not path.is_dir()):
            found.append(
                Source(path, PurePath(path.parent).relative_to(root), matched_part(path.name, name), searched=True)
            )
    if not found:
        raise UsageError(f"{pattern}: matches no {' or '.join(kinds)} files")
    return found


def _in_list(argument: str) -> list[Path]:
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
