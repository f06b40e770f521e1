"""Builds a listening report while recordings are compared: a page, and the sounds and pictures that it shows."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePath

import numpy as np

from gomin_client.errors import UsageError
from gomin_client.files import audio
from gomin_client.files.atomic import atomic_folder, atomic_write, temporary_directory, temporary_file_errors
from gomin_client.mel.features import MelConfig, Wave, mel_spectrogram
from gomin_client.report import pictures
from gomin_client.report.page import GENERATOR, Entry, Sound, Version, data_url, render, text
from gomin_client.tools.compare import Comparison, Versions, compare_paths

PAGE = "index.html"  # of a report that is a folder
MOST_EMBEDDED_BYTES = 50_000_000  # files in a page of its own, which a browser holds in memory as a whole
_PAGE_SUFFIXES = (".html", ".htm")
_PACKAGES = {"jinja2": "Jinja2", "matplotlib": "matplotlib", "PIL": "Pillow"}
_KINDS = {".flac": "audio/flac", ".png": "image/png"}


def require_packages() -> None:
    """Fail before any work is done, not after.

    Raises:
        UsageError: a package that reports need is not installed.
    """
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise UsageError(f"reports need {', '.join(missing)}: pip install 'gomin-triton[plot]'")


def check_target(path: Path, compared: Sequence[Path]) -> None:
    """Refuse a report that would overwrite something else, or be taken for recordings by the next comparison.

    Args:
        path: the report, a page if it is named .html, otherwise a folder.
        compared: the files and folders that are compared.

    Raises:
        UsageError: says which, and what to do.
    """
    if _is_page(path):
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; expected the name of a file, or a folder that is not named .html")
        return
    if path.suffix and not path.is_dir():
        raise UsageError(f"{path}: expected a file name that ends with .html, or a folder")
    real = path.resolve()
    for root in compared:
        if root.resolve() in (real, *real.parents):
            raise UsageError(f"{path}: is in {root}, whose recordings are compared; choose another folder")
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; expected a file name that ends with .html, or a folder")
    if path.is_dir() and any(path.iterdir()) and not _is_report(path):
        raise UsageError(f"{path}: is a folder with other files; choose a new one")


def compare_with_report(
    path: Path,
    reference: Path,
    *others: Path,
    note: str = "",
    begin: Callable[[int], None] = lambda _: None,
    visit: Callable[[Versions], None] = lambda _: None,
) -> list[Comparison]:
    """`compare_paths`, with a report of it.

    A report is complete or not there. One recording at a time is held in memory.

    Args:
        path: see `check_target`.
        reference: see `compare_paths`.
        others: see `compare_paths`.
        note: text at the head of the page.
        begin: see `compare_paths`.
        visit: see `compare_paths`.

    Raises:
        UsageError, FileError: see `require_packages`, `check_target`, `compare_paths`; the report cannot be written, or
            is too large for a page.
    """
    require_packages()
    roots = (reference, *others)
    check_target(path, roots)
    letters = string.ascii_uppercase
    if len(roots) > len(letters):
        raise UsageError(f"a report has up to {len(letters)} versions; there are {len(roots)}")
    versions = [Version(letter, str(root)) for letter, root in zip(letters, roots, strict=False)]
    config = MelConfig()
    with _staged(path) as folder:
        limit = MOST_EMBEDDED_BYTES if _is_page(path) else None
        stage = _Stage(path, folder, versions, config, limit)

        def add(recording: Versions) -> None:
            stage.add(recording)
            visit(recording)

        comparisons = compare_paths(reference, *others, begin=begin, visit=add)
        if not _is_page(path):
            parts = render(versions, stage.entries, comparisons, config, note=note, address=str)
            _write(folder / PAGE, parts)
        else:
            parts = render(versions, stage.entries, comparisons, config, note=note, address=_embedded(folder))
            with atomic_write(path) as part:
                _write(part, parts)
    return comparisons


class _Stage:
    """Writes the sounds and pictures of recordings into a folder.

    Attributes:
        entries: one for each recording that could be compared.
    """

    def __init__(
        self, report: Path, folder: Path, versions: Sequence[Version], config: MelConfig, limit: int | None
    ) -> None:
        self.entries: list[Entry] = []
        self._report = report
        self._folder = folder
        self._versions = versions
        self._config = config
        self._limit = limit
        self._bytes = 0
        for name in ("audio", "pictures"):
            (folder / name).mkdir()

    def add(self, recording: Versions) -> None:
        """Write what the page shows of a recording, if it could be compared.

        Raises:
            OSError: a file cannot be written.
            UsageError: the page becomes too large.
        """
        reference = recording.waves[0]
        waves = [wave for wave in recording.waves[1:] if wave is not None]
        if reference is None or not waves:
            return
        key = f"{len(self.entries) + 1:04d}"
        original = mel_spectrogram(reference, self._config)
        frames = max(self._config.frames(len(wave)) for wave in (reference, *waves))
        sounds = []
        for version, path, wave, comparison in zip(
            self._versions, recording.paths, recording.waves, (None, *recording.comparisons), strict=True
        ):
            if wave is None:
                continue
            mel = original if comparison is None else mel_spectrogram(wave, self._config)
            difference = ""
            if comparison is not None:
                levels = pictures.difference_levels(original, mel, frames)
                difference = self._picture(f"{key}-{version.letter}-difference", levels, pictures.DIFFERENCE)
            sounds.append(
                Sound(
                    version,
                    text(path),
                    self._audio(f"{key}-{version.letter}", wave),
                    self._picture(f"{key}-{version.letter}", pictures.mel_levels(mel, frames), pictures.MEL),
                    difference,
                    None if comparison is None else comparison.distance,
                    len(wave) / self._config.sample_rate,
                    int((np.abs(wave) > 1).sum()),
                )
            )
        seconds = frames * self._config.hop_length / self._config.sample_rate
        self.entries.append(Entry(f"r{key}", text(recording.name), seconds, tuple(sounds)))

    def _audio(self, name: str, wave: Wave) -> str:
        """Write a sound without loss, except of what is beyond 16 bits or full scale."""
        file = f"audio/{name}.flac"
        path = self._folder / file
        audio.write_soundfile(path, [wave[np.newaxis]], self._config.sample_rate, "FLAC:PCM_16", comment="")
        return self._counted(file)

    def _picture(self, name: str, levels: pictures.Levels, colours: str) -> str:
        file = f"pictures/{name}.png"
        pictures.save(self._folder / file, levels, colours)
        return self._counted(file)

    def _counted(self, file: str) -> str:
        self._bytes += (self._folder / file).stat().st_size
        if self._limit is not None and self._bytes > self._limit:
            raise UsageError(
                f"{self._report}: more than {self._limit / 1e6:.0f} MB of audio and pictures, too much for one "
                f"page; give the name of a folder, for example {self._report.with_suffix('')}/"
            )
        return file


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """The folder that the files of a report are written to: the report itself, or a temporary one."""
    if _is_page(path):
        with temporary_directory() as folder, temporary_file_errors():
            yield folder
    else:
        with atomic_folder(path) as folder:
            yield folder


def _embedded(folder: Path) -> Callable[[str], str]:
    """Gives the content of a file in a folder as an address; it is read when it is asked for."""
    return lambda file: data_url((folder / file).read_bytes(), _KINDS[PurePath(file).suffix])


def _write(path: Path, parts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(parts)


def _is_page(path: Path) -> bool:
    return path.suffix.lower() in _PAGE_SUFFIXES


def _is_report(folder: Path) -> bool:
    """Whether a folder was written by this program."""
    try:
        with (folder / PAGE).open(encoding="utf-8", errors="replace") as file:
            return f'content="{GENERATOR}' in file.read(2000)
    except OSError:
        return False
