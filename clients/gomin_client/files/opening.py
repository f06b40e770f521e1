"""Opening audio: which decoder reads a file, or standard input, exactly to its end.

libsndfile is the first choice. It is not used if it gets the length of the content wrong. In this case uncompressed
samples are found by `layouts`, and everything else is decoded by FFmpeg.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from gomin_client.files import ffmpeg, flac_frames, formats, layouts, scanning
from gomin_client.files.audio import SoundFileDecoder
from gomin_client.files.contents import HEAD, KINDS, MAGIC, Content
from gomin_client.files.decoders import TRUNCATED, Decoder, DecodingError, JoinedDecoder
from gomin_client.files.layouts import Layout, LayoutError
from gomin_client.files.sections import Pipe, PipeSection, Section

# A part of a broadcast begins within a frame, without a mark; so many frames are no accident.
_LEAST_FRAMES = 8
_UNCOMPRESSED = ("wav", "w64", "aiff", "au", "caf")


def open_audio(path: Path) -> Decoder:
    """Open an audio file. Its content decides, not its extension.

    Raises:
        DecodingError: not audio, or audio of a format that is not supported, or that has another format's extension.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        content = identify_file(file)
    if content is None or not content.format:
        try:
            # without its name: by an extension .mp3, libsndfile would guess MPEG audio, and print what it misses
            return SoundFileDecoder(Section(path, [(0, path.stat().st_size)]))
        except DecodingError as error:
            if content is not None or scanning.scan_mpeg(path).frames < _LEAST_FRAMES:
                raise DecodingError(f"its content is {_described(content)}") from error
            content = KINDS["mp3"]
    if content.name in _UNCOMPRESSED:
        return _open_uncompressed(path, content)
    open_exactly = _OPENERS.get(content.name)
    if open_exactly is not None:
        return open_exactly(path, content)
    named, actual = formats.of(path), formats.named_to_read(content.format)
    if named is not None and named != actual:
        raise DecodingError(f"it is {content.description}; rename it to {path.with_suffix(actual.extension).name}")
    return ffmpeg.open_required(path, content.demuxer, f"it is {content.description}")


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
    content = KINDS["mp3"] if scanning.id3_size(head) else identify(head)
    if content is None or not content.format:
        raise DecodingError(f"its content is {_described(content)}")
    if content.name == "mp4":  # its index is mostly at the end
        raise DecodingError(f"it is {content.description}, which is not read while it arrives: leave --stream out")
    if content.name not in _UNCOMPRESSED:
        if not ffmpeg.is_installed():
            raise DecodingError(f"it is {content.description}: leave --stream out, or {ffmpeg.EXTRA}")
        return ffmpeg.FFmpegDecoder(pipe, content.demuxer)
    try:
        layout = layouts.read_layout(content.name, pipe)
    except LayoutError as error:
        raise DecodingError(str(error)) from error
    if not layout.encoding:
        raise DecodingError(f"it is {content.description} with compressed samples: leave --stream out")
    section = PipeSection(pipe, layout.size)
    return SoundFileDecoder(section, layout, lambda: _pipe_defect(pipe, section, content))


def _pipe_defect(pipe: Pipe, section: PipeSection, content: Content) -> str:
    """What is wrong with the length of the samples in a pipe."""
    if section.missing:
        return TRUNCATED
    following = identify(pipe.peek_ready(HEAD))
    return _FIRST if following is not None and following.name == content.name else ""


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


_SEVERAL = "it is several files in one"
_FIRST = "is several files in one; the first was read"
_MORE = "has more than its header says, which was not read"


def _open_uncompressed(path: Path, content: Content) -> Decoder:
    try:
        with path.open("rb") as file:
            layout = layouts.read_layout(content.name, file)
    except LayoutError:
        return _open_with_either(path, content)  # a variant that is not known here
    length = path.stat().st_size
    if layout.size is None:
        if layouts.is_chunks(path, content.name, layout.start, length):  # there are no samples
            return SoundFileDecoder(path)
        return _open_to_the_end(path, content, layout, length)
    end = layout.start + layout.size
    if end < length and content.name == "au":  # nothing but samples follows its header
        return _open_to_the_end(path, content, layout, length)
    defect = None if end == length else _length_defect(path, content, layout, length)
    if defect is None or (defect != _FIRST and not layout.encoding):
        return _open_with_either(path, content)
    if not layout.encoding:
        return ffmpeg.open_required(path, content.demuxer, _SEVERAL, defect)
    return SoundFileDecoder(Section(path, [(layout.start, min(end, length))]), layout, lambda: defect)


def _length_defect(path: Path, content: Content, layout: Layout, length: int) -> str | None:
    """What is wrong with a length that a header gives; None if libsndfile understands it."""
    end = layout.start + (layout.size or 0)
    missing = end - length
    if missing > 0:  # a length that counts the header, too, is a common mistake
        return "" if missing in (layout.start, layout.start - 8) else TRUNCATED
    if layouts.is_followed_by_another(path, content.name, layout, length):
        return _FIRST
    return _MORE if layouts.has_more(path, content.name, end, length) else None


def _open_to_the_end(path: Path, content: Content, layout: Layout, length: int) -> Decoder:
    """Open uncompressed samples that extend to the end of the file, except headers of files that were joined to it."""
    ranges = [(layout.start, length)]
    for position in scanning.find_all(path, layouts.MARKS[content.name], layout.start):
        try:
            with path.open("rb") as file:
                file.seek(position)
                other = layouts.read_layout(content.name, file)
        except LayoutError:
            continue
        if replace(other, start=0, size=None) != replace(layout, start=0, size=None):
            raise DecodingError(f"{_SEVERAL}, which differ in rate, channels or encoding; split it")
        ranges[-1:] = [(ranges[-1][0], position), (position + other.start, length)]
    if layout.encoding:
        return SoundFileDecoder(Section(path, ranges), layout, lambda: "")
    if len(ranges) > 1:
        raise DecodingError(f"{_SEVERAL}; split it")
    return ffmpeg.open_required(path, content.demuxer, "its samples are compressed, and their number is unknown")


def _open_mpeg(path: Path, content: Content) -> Decoder:
    extent = scanning.scan_mpeg(path)
    is_cut = extent.declared is not None and extent.frames < extent.declared - 1
    if (is_cut or extent.frames < 2) and ffmpeg.is_installed():  # libsndfile would print warnings of its own
        return ffmpeg.FFmpegDecoder(path, content.demuxer, defect=TRUNCATED if is_cut else "")
    if not extent.frames:  # a bit rate that is not declared, for example
        return SoundFileDecoder(path)
    if extent.is_uniform and (extent.declared is None or extent.frames <= extent.declared + 1):
        is_exact = extent.declared is not None or extent.has_tail
        frames_only = Section(path, [(extent.start, extent.end if is_exact else path.stat().st_size)])
        decoder = SoundFileDecoder(frames_only, defect=lambda: TRUNCATED if is_cut else "")
        if extent.declared is not None or decoder.frames >= extent.samples:  # the latter is an estimate
            return decoder
        decoder.close()
    return ffmpeg.open_required(path, content.demuxer, "it is MPEG audio that was joined or has no length")


def _open_ogg(path: Path, content: Content) -> Decoder:
    links, is_cut = scanning.scan_ogg(path)
    if not links or any(link.codec not in ("vorbis", "opus") or link.streams > 1 for link in links):
        codecs = ", ".join(dict.fromkeys(link.codec or "other data" for link in links))
        return ffmpeg.open_required(path, content.demuxer, f"it is an Ogg file with {codecs or 'damage'}")
    is_reordered = links[0].is_reordered
    if len(links) == 1:
        return SoundFileDecoder(path, defect=lambda: TRUNCATED if is_cut else "", is_reordered=is_reordered)
    return _open_joined(path, [link.start for link in links], partial(SoundFileDecoder, is_reordered=is_reordered))


def _open_flac(path: Path, content: Content) -> Decoder:
    streams = scanning.scan_flac(path)
    if not streams or all(is_declared for _, is_declared in streams):
        if len(streams) > 1:
            return _open_joined(path, [start for start, _ in streams], SoundFileDecoder)
        decoder = SoundFileDecoder(path)
        last = flac_frames.last_frame_start(path, streams[0][0]) if streams else None
        if last is None or last < decoder.frames:
            return ffmpeg.ResumingDecoder(decoder, path, content.demuxer)
        decoder.close()
        return ffmpeg.open_required(path, content.demuxer, "it is FLAC that is longer than its header says")
    if len(streams) == 1 or not ffmpeg.is_installed():
        return ffmpeg.open_required(path, content.demuxer, "it is FLAC whose header does not give its length")
    return _open_joined(path, [start for start, _ in streams], lambda part: ffmpeg.FFmpegDecoder(part, "flac"))


def _open_joined(path: Path, starts: Sequence[int], open_part: Callable[[Section], Decoder]) -> Decoder:
    """Open streams that follow each other in a file, each by itself."""
    ends = [*starts[1:], path.stat().st_size]
    ranges = zip(starts, ends, strict=True)
    return JoinedDecoder([partial(_open_range, path, start, end, open_part) for start, end in ranges])


def _open_range(path: Path, start: int, end: int, open_part: Callable[[Section], Decoder]) -> Decoder:
    return open_part(Section(path, [(start, end)]))


def _open_voc(path: Path, content: Content) -> Decoder:
    if scanning.count_voc_blocks(path) == 1:
        return SoundFileDecoder(path)
    return ffmpeg.open_required(path, content.demuxer, "it is a Creative Voice file of several blocks")


def _open_svx(path: Path, content: Content) -> Decoder:
    decoder = SoundFileDecoder(path)
    if decoder.channels == 1:
        return decoder
    decoder.close()  # libsndfile takes the channels, which follow one after the other, for interleaved ones
    return ffmpeg.open_required(path, content.demuxer, f"it is {content.description} with several channels")


def _open_nist(path: Path, content: Content) -> Decoder:
    with path.open("rb") as file:
        if re.search(rb"\nsample_coding[^\n]*shorten", file.read(HEAD)):
            raise DecodingError(f"it is {content.description} that is compressed; unpack it: sph2pipe -f wav")
    return _open_with_either(path, content)


_OPENERS: dict[str, Callable[[Path, Content], Decoder]] = {
    "mp3": _open_mpeg,
    "ogg": _open_ogg,
    "flac": _open_flac,
    "voc": _open_voc,
    "svx": _open_svx,
    "nist": _open_nist,
}


def identify(head: bytes) -> Content | None:
    """The kind of a file.

    Args:
        head: its first `HEAD` bytes, or all if there are fewer; without an ID3v2 tag, see `scanning.id3_size`.

    Returns:
        None if the kind is not known.
    """
    name = next((name for at, magic, name in MAGIC if head[at : at + len(magic)] == magic), None)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        name = "wav"
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        name = "avi"
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        name = "aiff"
    elif head[:4] == b"FORM" and head[8:12] == b"8SVX":
        name = "svx"
    if name is None and head[:1] == b"\xff" and len(head) >= 4:
        if head[1] & 0xF6 == 0xF0:
            name = "adts"
        elif head[1] & 0xE0 == 0xE0 and head[1] & 0x18 != 0x08 and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C:
            name = "mp3"
    if name is None and len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        name = "mpegts"
    return KINDS[name or _text(head)] if name or _text(head) else None


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


def identify_file(file: BinaryIO) -> Content | None:
    """The kind of an open file, by what follows its ID3v2 tags."""
    start = 0
    while True:
        file.seek(start)
        head = file.read(HEAD)
        tag = scanning.id3_size(head) if head[:3] == b"ID3" else 0
        if not tag:
            # what follows such a tag is MPEG audio, even if it begins with padding
            return identify(head) or (KINDS["mp3"] if start and head else None)
        start += tag
