"""What a file is, by its first bytes: extensions are often wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

HEAD = 1024  # bytes that are enough to recognise a format


@dataclass(frozen=True)
class Content:
    """A kind of content.

    Attributes:
        name: a short name.
        description: with its article, for messages: "is …".
        format: the name in `formats.FORMATS`; empty if it is not audio.
        demuxer: FFmpeg's name, for audio that FFmpeg reads.
    """

    name: str
    description: str
    format: str = ""
    demuxer: str = ""


# name → description, format, demuxer
_KINDS = {
    "wav": ("a WAV file", "wav", "wav"),
    "w64": ("a Wave64 file", "w64", "w64"),
    "aiff": ("an AIFF file", "aiff", "aiff"),
    "au": ("an AU file", "au", "au"),
    "caf": ("a CAF file", "caf", "caf"),
    "voc": ("a Creative Voice file", "voc", "voc"),
    "flac": ("a FLAC file", "flac", "flac"),
    "ogg": ("an Ogg file", "ogg", "ogg"),
    "mp3": ("an MPEG audio file", "mp3", "mp3"),
    "mp4": ("an MPEG-4 or QuickTime file", "m4a", "mp4"),
    "matroska": ("a Matroska or WebM file", "webm", "matroska"),
    "adts": ("an AAC stream", "aac", "aac"),
    "asf": ("a Windows Media file", "wma", "asf"),
    "ac3": ("an AC-3 stream", "ac3", "ac3"),
    "amr": ("an AMR file", "amr", "amr"),
    "wavpack": ("a WavPack file", "wv", "wv"),
    "tta": ("a True Audio file", "tta", "tta"),
    "ape": ("a Monkey's Audio file", "ape", "ape"),
    "flv": ("a Flash video file", "flv", "flv"),
    "mpegts": ("an MPEG transport stream", "ts", "mpegts"),
    "html": ("an HTML page",),
    "xml": ("an XML file",),
    "lfs": ("a Git LFS pointer, not the file itself",),
    "pdf": ("a PDF file",),
    "zip": ("a ZIP archive",),
    "gzip": ("a gzip archive",),
    "jpeg": ("a JPEG picture",),
    "png": ("a PNG picture",),
    "numpy": ("a numpy array",),
    "midi": ("a MIDI file, which has notes, not sound",),
    "playlist": ("a playlist, not audio",),
    "zeros": ("nothing but zero bytes",),
    "text": ("text",),
}
KINDS = {name: Content(name, *fields) for name, fields in _KINDS.items()}

_MAGIC = (
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b".snd", "au"),
    (0, b"dns.", "au"),
    (0, b"caff", "caf"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (0, b"Creative Voice File\x1a", "voc"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"#!AMR", "amr"),
    (0, b"wvpk", "wavpack"),
    (0, b"TTA1", "tta"),
    (0, b"MAC ", "ape"),
    (0, b"FLV\x01", "flv"),
    (0, b"\x0b\x77", "ac3"),
    (0, b"version https://git-lfs", "lfs"),
    (0, b"%PDF", "pdf"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"\x89PNG", "png"),
    (0, b"\x93NUMPY", "numpy"),
    (0, b"MThd", "midi"),
    (0, b"#EXTM3U", "playlist"),
    (0, b"[playlist]", "playlist"),
    (4, b"ftyp", "mp4"),
    (4, b"moov", "mp4"),
    (4, b"mdat", "mp4"),
    (4, b"wide", "mp4"),
    (4, b"free", "mp4"),
)


def identify(head: bytes) -> Content | None:
    """The kind of a file.

    Args:
        head: its first `HEAD` bytes, or all if there are fewer; without an ID3v2 tag, see `id3_size`.

    Returns:
        None if the kind is not known.
    """
    name = _riff(head) or next((name for at, magic, name in _MAGIC if head[at : at + len(magic)] == magic), None)
    if name is None and head[:1] == b"\xff" and len(head) >= 4:
        if head[1] & 0xF6 == 0xF0:
            name = "adts"
        elif head[1] & 0xE0 == 0xE0 and head[1] & 0x18 != 0x08 and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C:
            name = "mp3"
    if name is None and len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        name = "mpegts"
    return KINDS[name or _text(head)] if name or _text(head) else None


def _riff(head: bytes) -> str:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    return "aiff" if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC") else ""


def _text(head: bytes) -> str:
    """The kind of a text; empty for anything else."""
    if head and not head.strip(b"\0"):
        return "zeros"
    try:
        text = head.decode("utf-8-sig", "strict" if len(head) < HEAD else "ignore").lstrip().lower()
    except UnicodeDecodeError:
        return ""
    if text.startswith(("<!doctype html", "<html")):
        return "html"
    if text.startswith("<?xml"):
        return "xml"
    return "text" if text and all(sign.isprintable() or sign in "\r\n\t" for sign in text) else ""


def id3_size(head: bytes) -> int:
    """The bytes of an ID3v2 tag at the start of a file; 0 if there is none."""
    if head[:3] != b"ID3" or len(head) < 10 or any(byte & 0x80 for byte in head[6:10]):
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


def identify_file(file: BinaryIO) -> tuple[Content | None, int]:
    """The kind of an open file, and where its content begins, after ID3v2 tags."""
    start = 0
    while True:
        file.seek(start)
        head = file.read(HEAD)
        tag = id3_size(head)
        if not tag:
            # what follows an ID3v2 tag is MPEG audio, even if it begins with padding
            return identify(head) or (KINDS["mp3"] if start and head else None), start
        start += tag


def identify_path(path: Path) -> Content | None:
    """The kind of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return identify_file(file)[0]
