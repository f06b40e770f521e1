"""Opening audio: which decoder reads a file, or standard input, exactly to its end.

libsndfile is the first choice. It is not used if its idea of the length is not that of the content: then uncompressed
samples are found by `layouts`, and everything else is decoded by FFmpeg.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from gomin_client.files import contents, ffmpeg, formats, scanning
from gomin_client.files.contents import HEAD, Content
from gomin_client.files.decoders import TRUNCATED, Decoder, DecodingError
from gomin_client.files.layouts import Layout, LayoutError, read_layout
from gomin_client.files.sections import Pipe, PipeSection, Section
from gomin_client.files.sndfile import SoundFileDecoder

_UNCOMPRESSED = ("wav", "w64", "aiff", "au", "caf")
_MOST_CHUNKS = 1000


@dataclass(frozen=True)
class _Chunks:
    """How a container is made of chunks.

    Attributes:
        layout: of a chunk's name and size.
        alignment: of chunks, in bytes.
        whole: the names that a whole file begins with.
    """

    layout: str
    alignment: int
    whole: tuple[bytes, ...]


_CHUNKS = {
    "wav": _Chunks("<4sI", 2, (b"RIFF", b"RIFX", b"RF64", b"BW64")),
    "aiff": _Chunks(">4sI", 2, (b"FORM",)),
    "caf": _Chunks(">4sq", 1, (b"caff",)),
}
# the beginning of a whole file, where it is looked for among samples
_MARKS = {
    "wav": rb"(?:RIFF|RF64|BW64)....WAVE",
    "w64": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb",
    "aiff": rb"FORM....AIF[FC]",
    "au": rb"\.snd\x00\x00..\x00\x00\x00|\.snd\x00\x00..\xff\xff\xff\xff",
    "caf": rb"caff\x00\x01..desc",
}


def open_audio(path: Path) -> Decoder:
    """Open an audio file. Its content decides, not its extension.

    Raises:
        DecodingError: not audio, or audio of a format that is not supported, or that has another format's extension.
        OSError: the file cannot be read.
    """
    content = contents.identify_path(path)
    if content is None or not content.format:
        try:
            return SoundFileDecoder(path)
        except DecodingError as error:
            raise DecodingError(f"its content is {_described(content)}") from error
    if content.name in _UNCOMPRESSED:
        return _open_uncompressed(path, content)
    open_exactly = _OPENERS.get(content.name)
    if open_exactly is not None:
        return open_exactly(path, content)
    named, actual = formats.of(path), formats.named_to_read(content.format)
    if named is not None and named != actual:
        raise DecodingError(f"it is {content.description}; rename it to {path.with_suffix(actual.extension).name}")
    return _open_with_ffmpeg(path, content, f"it is {content.description}")


def open_stream(descriptor: int) -> Decoder:
    """Open audio in a pipe, without reading ahead more than is needed.

    Args:
        descriptor: of the pipe, which is not closed.

    Raises:
        DecodingError: not audio, or audio that cannot be read without seeking.
        OSError: the pipe cannot be read.
    """
    pipe = Pipe(descriptor)
    head = pipe.peek(HEAD)
    if not head:
        raise DecodingError("it is empty")
    content = contents.KINDS["mp3"] if contents.id3_size(head) else contents.identify(head)
    if content is None or not content.format:
        raise DecodingError(f"its content is {_described(content)}")
    if content.name not in _UNCOMPRESSED:
        if not ffmpeg.is_installed():
            raise DecodingError(f"it is {content.description}: leave --stream out, or {ffmpeg.EXTRA}")
        return ffmpeg.FFmpegDecoder(pipe, content.demuxer)
    try:
        layout = read_layout(content.name, pipe)
    except LayoutError as error:
        raise DecodingError(str(error)) from error
    if not layout.encoding:
        raise DecodingError(f"it is {content.description} with compressed samples: leave --stream out")
    section = PipeSection(pipe, layout.size)
    return SoundFileDecoder(section, layout, lambda: TRUNCATED if section.missing else "")


def _described(content: Content | None) -> str:
    return "not in a known format" if content is None else content.description


def _open_with_either(path: Path, content: Content) -> Decoder:
    """libsndfile, or FFmpeg for encodings that it does not have."""
    try:
        return SoundFileDecoder(path)
    except DecodingError:
        if not ffmpeg.is_installed():
            raise
        return ffmpeg.FFmpegDecoder(path, content.demuxer)


def _open_with_ffmpeg(path: Path, content: Content, reason: str) -> Decoder:
    if not ffmpeg.is_installed():
        raise DecodingError(f"{reason}, which needs PyAV: {ffmpeg.EXTRA}")
    return ffmpeg.FFmpegDecoder(path, content.demuxer, is_cut=scanning.is_cut(path, content.name))


def _open_mpeg(path: Path, content: Content) -> Decoder:
    extent = scanning.scan_mpeg(path)
    if not extent.frames:  # a bit rate that is not declared, for example
        return SoundFileDecoder(path)
    is_cut = extent.declared is not None and extent.frames < extent.declared - 1
    if is_cut and ffmpeg.is_installed():  # libsndfile prints warnings of its own
        return ffmpeg.FFmpegDecoder(path, content.demuxer, is_cut=True)
    if extent.is_uniform and (extent.declared is None or extent.frames <= extent.declared + 1):
        decoder = SoundFileDecoder(path, defect=lambda: TRUNCATED if is_cut else "")
        if extent.declared is not None or decoder.frames >= extent.samples:  # the latter is an estimate
            return decoder
        decoder.close()
    return _open_with_ffmpeg(path, content, "it is MPEG audio whose header does not give its true length")


def _open_ogg(path: Path, content: Content) -> Decoder:
    extent = scanning.scan_ogg(path)
    if extent.codec in ("vorbis", "opus") and extent.streams == 1 and not extent.is_chained:
        return SoundFileDecoder(path, defect=lambda: TRUNCATED if extent.is_cut else "")
    what = "several Ogg streams" if extent.is_chained or extent.streams > 1 else f"Ogg with {extent.codec or 'others'}"
    return _open_with_ffmpeg(path, content, f"it contains {what}")


def _open_flac(path: Path, content: Content) -> Decoder:
    if scanning.scan_flac(path):
        return ffmpeg.ResumingDecoder(SoundFileDecoder(path), path, content.demuxer)
    return _open_with_ffmpeg(path, content, "it is FLAC whose header does not give its true length")


def _open_voc(path: Path, content: Content) -> Decoder:
    if scanning.count_voc_blocks(path) == 1:
        return SoundFileDecoder(path)
    return _open_with_ffmpeg(path, content, "it is a Creative Voice file of several blocks")


_OPENERS: dict[str, Callable[[Path, Content], Decoder]] = {
    "mp3": _open_mpeg,
    "ogg": _open_ogg,
    "flac": _open_flac,
    "voc": _open_voc,
}


def _open_uncompressed(path: Path, content: Content) -> Decoder:
    try:
        with path.open("rb") as file:
            layout = read_layout(content.name, file)
    except LayoutError:
        return _open_with_either(path, content)  # a variant that is not known here
    length = path.stat().st_size
    if layout.size is None or content.name == "au":  # nothing but samples follows the header of an AU file
        if _is_chunks(path, content, layout.start, length):  # there are none
            return SoundFileDecoder(path)
        return _open_to_the_end(path, content, layout, length)
    missing = layout.start + layout.size - length
    if missing <= 0 and not _is_followed_by_another(path, content, layout, length):
        return _open_with_either(path, content)
    if not layout.encoding:
        return _open_with_either(path, content) if missing > 0 else _open_with_ffmpeg(path, content, _SEVERAL)
    # a length that counts the header, too, is a common mistake
    is_truncated = missing > 0 and missing not in (layout.start, layout.start - 8)
    defect = TRUNCATED if is_truncated else "is several files in one; the first was read" if missing <= 0 else ""
    end = layout.start + layout.size - max(0, missing)
    return SoundFileDecoder(Section(path, [(layout.start, end)]), layout, lambda: defect)


_SEVERAL = "it is several files in one"


def _open_to_the_end(path: Path, content: Content, layout: Layout, length: int) -> Decoder:
    """Open uncompressed samples that extend to the end of the file, but for headers of files that were joined to it."""
    ranges = [(layout.start, length)]
    for position in scanning.find_all(path, _MARKS[content.name], layout.start):
        try:
            with path.open("rb") as file:
                file.seek(position)
                other = read_layout(content.name, file)
        except LayoutError:
            continue
        if replace(other, start=0, size=None) != replace(layout, start=0, size=None):
            raise DecodingError(f"{_SEVERAL}, which differ in rate, channels or encoding; split it")
        ranges[-1:] = [(ranges[-1][0], position), (position + other.start, length)]
    if layout.encoding:
        return SoundFileDecoder(Section(path, ranges), layout, lambda: "")
    if len(ranges) > 1:
        raise DecodingError(f"{_SEVERAL}; split it")
    return _open_with_ffmpeg(path, content, f"it is {content.description} of compressed samples of unknown length")


def _is_followed_by_another(path: Path, content: Content, layout: Layout, length: int) -> bool:
    """Whether another file of the same kind follows the samples and other chunks."""
    with path.open("rb") as file:
        if content.name == "w64":
            file.seek(16)
            file.seek(min(int.from_bytes(file.read(8), "little"), length))
            return file.read(4) == b"riff"
        position = layout.start + (layout.size or 0)
        return any(mark in _CHUNKS[content.name].whole for mark, _ in _chunks(file, content, position, length))


def _is_chunks(path: Path, content: Content, position: int, length: int) -> bool:
    """Whether chunks, not samples, fill the file from a position to its end."""
    if content.name not in _CHUNKS or position >= length:
        return False
    with path.open("rb") as file:
        end = max((following for _, following in _chunks(file, content, position, length)), default=0)
    return end - length in range(_CHUNKS[content.name].alignment)


def _chunks(file: BinaryIO, content: Content, position: int, length: int) -> Iterator[tuple[bytes, int]]:
    """(name, offset of the next) of chunks, as far as there are any."""
    kind = _CHUNKS[content.name]
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        head = file.read(struct.calcsize(kind.layout))
        if len(head) < struct.calcsize(kind.layout) or not head[:4].decode("latin-1").isprintable():
            return
        name, size = struct.unpack(kind.layout, head)
        position += len(head) + size
        position += -position % kind.alignment
        yield name, position
        if size < 0 or position > length:
            return
