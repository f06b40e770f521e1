"""The file formats, in one table: what can be read and written, by which functions, and with which options.

Options, errors, the search through folders and the tables of the documentation are made from `FORMATS`. To add a
format, `register` it. Neither numpy nor an audio library is imported before a file is read or written.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from gomin_client.errors import UsageError

AUDIO, MEL = "audio", "mel"

# A function, or "module:function", which is imported when it is first needed.
Function = str | Callable[..., Any]


@dataclass(frozen=True)
class Requirement:
    """A package that a format needs and that is not always installed.

    Attributes:
        module: the name that is imported.
        package: the name of the package.
        advice: the end of an error message: what to install, or what to use instead.
    """

    module: str
    package: str
    advice: str


@dataclass(frozen=True)
class Format:
    """One file format.

    Attributes:
        name: the name that `--format` takes.
        kind: `AUDIO` or `MEL`.
        extensions: in lower case, with the dot; only the first is written.
        reader: opens a file. For audio (path) → `decoders.Decoder`; for mels (path) → (array, settings), see
            `mels.read`. None if the format is not read.
        writer: writes a file. For audio (path, waves, rate, encoding, comment) → number of samples, see
            `audio.write_blocks`; for mels (path, mels, settings), see `mels.write_blocks`. None if it is not written.
        subtypes: names that `--subtype` takes → the encoding that the writer takes; the first is the default.
        streamable: the subtypes that can be written while the audio is still being computed; none for most formats.
        requirement: a package that both functions need, if it is optional.
        description: the contents, for the documentation.
    """

    name: str
    kind: str
    extensions: tuple[str, ...]
    reader: Function | None = None
    writer: Function | None = None
    subtypes: Mapping[str, str] = field(default_factory=dict)
    streamable: tuple[str, ...] = ()
    requirement: Requirement | None = None
    description: str = ""

    @property
    def extension(self) -> str:
        """The extension that is written."""
        return self.extensions[0]

    def require(self, path: PurePath) -> None:
        """Check that the optional package is installed, without importing it.

        Args:
            path: the file that needs it, for the message.

        Raises:
            UsageError: it is not installed.
        """
        needed = self.requirement
        if needed is not None and not _is_installed(needed.module):
            raise UsageError(f"{path}: {path.suffix.lower()} files need {needed.package}: {needed.advice}")

    def check_subtype(self, subtype: str | None) -> None:
        """Refuse a subtype that the format does not have, before any work is done.

        Raises:
            UsageError: lists the subtypes of the format.
        """
        if subtype is not None and subtype not in self.subtypes:
            known = ", ".join(self.subtypes) or "none"
            raise UsageError(f"--subtype {subtype}: {self.extension} files have {known}")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that contains it
        return False


def loaded(function: Function | None) -> Callable[..., Any]:
    """A reader or writer that a format has."""
    assert function is not None
    found: Callable[..., Any] = pkgutil.resolve_name(function) if isinstance(function, str) else function
    return found


_READ_AUDIO = "gomin_client.files.opening:open_audio"
_WRITE_AUDIO = "gomin_client.files.audio:write_soundfile"
_TORCH = Requirement("torch", "torch", "pip install torch; .npz keeps the same without it")
_MELS = "gomin_client.files.mels"


_PYAV = Requirement("av", "PyAV", "pip install 'gomin-triton[formats]'")


def _audio(name: str, description: str, *other_extensions: str, **options: Any) -> Format:
    """An audio format that is read by its content."""
    extensions = (f".{name}", *other_extensions)
    return Format(name, AUDIO, extensions, reader=_READ_AUDIO, description=description, **options)


# --subtype → libsndfile's format and encoding. The default is 16 bits for formats that have a choice, as in GOMIN's own
# program.
_WAV = {"16": "WAV:PCM_16", "24": "WAV:PCM_24", "float": "WAV:FLOAT"}
_OGG = {"vorbis": "OGG:VORBIS", "opus": "OGG:OPUS"}

FORMATS: list[Format] = [
    _audio("wav", "RIFF WAVE", ".wave", ".bwf", writer=_WRITE_AUDIO, subtypes=_WAV, streamable=("16", "float")),
    _audio("flac", "FLAC", writer=_WRITE_AUDIO, subtypes={"16": "FLAC:PCM_16", "24": "FLAC:PCM_24"}),
    _audio("ogg", "Ogg: Vorbis, Opus, FLAC, Speex", ".oga", ".opus", ".spx", writer=_WRITE_AUDIO, subtypes=_OGG),
    _audio(
        "mp3",
        "MPEG audio, layers I to III",
        ".mp2",
        ".mpga",
        writer=_WRITE_AUDIO,
        subtypes={"mp3": "MP3:MPEG_LAYER_III"},
    ),
    _audio("aiff", "AIFF and AIFF-C", ".aif", ".aifc"),
    _audio("au", "Sun and NeXT audio", ".snd"),
    _audio("caf", "Apple Core Audio"),
    _audio("w64", "Sony Wave64"),
    _audio("rf64", "RIFF with 64-bit sizes", ".bw64"),
    _audio("wve", "Psion"),
    _audio("voc", "Creative Voice"),
    _audio("nist", "NIST Sphere", ".sph"),
    _audio("paf", "Ensoniq Paris"),
    _audio("svx", "Amiga IFF 8SVX"),
    _audio("ircam", "IRCAM"),
    _audio("avr", "Audio Visual Research"),
    _audio("pvf", "Portable Voice Format"),
    _audio("htk", "HTK"),
    _audio("m4a", "MPEG-4, QuickTime", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", requirement=_PYAV),
    _audio("webm", "WebM, Matroska", ".mka", ".mkv", requirement=_PYAV),
    _audio("aac", "AAC stream", requirement=_PYAV),
    _audio("wma", "Windows Media", ".asf", ".wmv", requirement=_PYAV),
    _audio("ac3", "AC-3 stream", requirement=_PYAV),
    _audio("amr", "AMR", requirement=_PYAV),
    _audio("wv", "WavPack", requirement=_PYAV),
    _audio("tta", "True Audio", requirement=_PYAV),
    _audio("ape", "Monkey's Audio", requirement=_PYAV),
    _audio("flv", "Flash video", requirement=_PYAV),
    # not .ts, which is mostly TypeScript
    _audio("mpegts", "MPEG transport stream", requirement=_PYAV),
    Format("raw", AUDIO, (".raw",), streamable=("16", "float"), description="samples without a header"),
    Format(
        "npz",
        MEL,
        (".npz",),
        reader=f"{_MELS}:load_npz",
        writer=f"{_MELS}:save_npz",
        description="`melspec` (channels, n_mels, frames) and its settings",
    ),
    Format(
        "npy",
        MEL,
        (".npy",),
        reader=f"{_MELS}:load_npy",
        writer=f"{_MELS}:save_npy",
        description="(n_mels, frames) or (channels, n_mels, frames), without settings",
    ),
    Format(
        "pt",
        MEL,
        (".pt",),
        reader=f"{_MELS}:load_pt",
        writer=f"{_MELS}:save_pt",
        requirement=_TORCH,
        description="GOMIN's dict of the same names as .npz",
    ),
]


def register(added: Format) -> None:
    """Add a format of your own; options, errors and the search through folders then know it.

    Raises:
        ValueError: the name or an extension is taken, or an extension is not written as ".abc".
    """
    for extension in added.extensions:
        if not extension.startswith(".") or extension != extension.lower():
            raise ValueError(f"extension {extension!r}: expected lower case that begins with a dot")
        if of(PurePath(f"x{extension}")) is not None:
            raise ValueError(f"extension {extension!r} is taken")
    if added.name in {known.name for known in FORMATS}:
        raise ValueError(f"format name {added.name!r} is taken")
    FORMATS.append(added)


def of(path: PurePath) -> Format | None:
    """The format of a file, by its extension in either case; None if it is not known."""
    extension = path.suffix.lower()
    return next((known for known in FORMATS if extension in known.extensions), None)


def to_read(path: PurePath) -> Format | None:
    """The format to read a file in; None if there is none."""
    found = of(path)
    return found if found is not None and found.reader is not None else None


def to_write(path: PurePath) -> Format | None:
    """The format to write a file in; None if there is none. Only a format's first extension is written."""
    found = of(path)
    return found if found is not None and found.writer is not None and path.suffix.lower() == found.extension else None


def readable(*kinds: str) -> tuple[str, ...]:
    """The extensions that are read, of formats of these kinds; of both kinds, if none is given."""
    found = (known for known in FORMATS if known.reader is not None and known.kind in (kinds or (AUDIO, MEL)))
    return tuple(extension for known in found for extension in known.extensions)


def writable(*kinds: str) -> tuple[str, ...]:
    """The extensions that are written, of formats of these kinds; of both kinds, if none is given."""
    found = (known for known in FORMATS if known.writer is not None and known.kind in (kinds or (AUDIO, MEL)))
    return tuple(known.extension for known in found)


def names(kind: str, *, stream: bool = False) -> list[str]:
    """The names that `--format` takes.

    Args:
        kind: `AUDIO` or `MEL`.
        stream: the formats that can be written while the audio is still being computed, instead of as files.
    """
    return [
        known.name
        for known in FORMATS
        if known.kind == kind and (known.streamable if stream else known.writer is not None)
    ]


def named(name: str, kind: str, *, stream: bool = False) -> Format:
    """The format that is written under a name, as `--format` takes it.

    Args:
        name: its name, or an extension.
        kind: `AUDIO` or `MEL`.
        stream: see `names`.

    Raises:
        UsageError: no such format.
    """
    plain = name.lower().removeprefix(".")
    known = names(kind, stream=stream)
    if stream and plain not in known and plain in names(kind):
        raise UsageError(f"--stream: .{plain} needs to be complete; expected --format {_either(known)}")
    if plain not in known:
        raise UsageError(f"--format {name}: expected {', '.join(known)}")
    return next(found for found in FORMATS if found.name == plain)


def named_to_read(name: str) -> Format:
    """The format of a name that is known to be one."""
    return next(found for found in FORMATS if found.name == name)


def subtypes_help() -> str:
    """All subtypes of audio files, for the help: "16, 24 or float (.wav), …"."""
    with_choice = [known for known in FORMATS if known.kind == AUDIO and len(known.subtypes) > 1]
    return ", ".join(f"{_either(list(known.subtypes))} ({known.extension})" for known in with_choice)


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
