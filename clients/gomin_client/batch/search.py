"""Searching folders and patterns: every real file once, whatever links there are.

Linked folders are followed. A folder is searched once, by its first path that leads through no link if there is one;
so a link to a folder above it ends the search there, instead of repeating it until the path is too long.
"""

from __future__ import annotations

import fnmatch
import os
from collections import deque
from collections.abc import Iterator, Sequence
from glob import has_magic
from pathlib import PurePath


class Search:
    """A search through folders; hidden files and folders are skipped.

    Attributes:
        problems: the folders that could not be searched, and why, one message each.
    """

    def __init__(self) -> None:
        """Begin without problems."""
        self.problems: list[str] = []

    def in_folder(self, root: str) -> list[str]:
        """The paths of all entries in a folder and its subfolders, in a fixed order."""
        return [entry.path for _, entries in self._walk(root) for entry in entries]

    def by_pattern(self, pattern: str) -> list[str]:
        """The paths that match a pattern, sorted.

        Args:
            pattern: "*", "?" and "[…]" match parts of a name, "**" any subfolders.
        """
        path = PurePath(pattern)
        parts = path.parts[1:] if path.anchor else path.parts
        return sorted({str(PurePath(found)) for found in self._expand(path.anchor, parts)})

    def _expand(self, base: str, parts: Sequence[str]) -> Iterator[str]:
        """The paths below a folder ("" for the current one) that match the remaining parts of a pattern."""
        part, rest = parts[0], parts[1:]
        if part == "**":
            while rest and rest[0] == "**":
                rest = rest[1:]
            for folder, entries in self._walk(base):
                if rest:
                    yield from self._expand(folder, rest)
                else:
                    yield from (entry.path for entry in entries)
        elif has_magic(part):
            for entry in self._entries(base, hidden=part.startswith(".")):
                if not fnmatch.fnmatch(entry.name, part):
                    continue
                if not rest:
                    yield entry.path
                elif os.path.isdir(entry.path):
                    yield from self._expand(entry.path, rest)
        else:
            path = os.path.join(base, part)
            if rest and os.path.isdir(path):
                yield from self._expand(path, rest)
            elif not rest and os.path.lexists(path):
                yield path

    def _walk(self, root: str) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
        """A folder and its subfolders with their entries, real ones first, then those that links lead to."""
        seen: set[tuple[int, int]] = set()
        linked = deque([root])
        while linked:
            real = [linked.popleft()]
            while real:
                folder = real.pop()
                identity = self._identity(folder)
                if identity is None or identity in seen:
                    continue
                seen.add(identity)
                entries = self._entries(folder)
                yield folder, entries
                subfolders = [entry for entry in entries if os.path.isdir(entry.path)]
                linked += [entry.path for entry in subfolders if entry.is_symlink()]
                real += [entry.path for entry in reversed(subfolders) if not entry.is_symlink()]

    def _identity(self, folder: str) -> tuple[int, int] | None:
        try:
            status = os.stat(folder or os.curdir)
        except OSError as error:
            self._note(folder, error)
            return None
        return status.st_dev, status.st_ino

    def _entries(self, folder: str, *, hidden: bool = False) -> list[os.DirEntry[str]]:
        """The entries of a folder by name; those whose names begin with a dot only if asked for."""
        try:
            with os.scandir(folder or os.curdir) as entries:
                found = [entry for entry in entries if hidden or not entry.name.startswith(".")]
        except OSError as error:
            self._note(folder, error)
            return []
        return sorted(found, key=lambda entry: entry.name)

    def _note(self, folder: str, error: OSError) -> None:
        problem = f"{folder or os.curdir}: cannot be searched: {error.strerror}"
        if problem not in self.problems:  # a pattern may come by it twice
            self.problems.append(problem)
