"""The kinds of content that are recognised by their first bytes, for `opening.identify`: extensions are often wrong."""

from __future__ import annotations

from dataclasses import dataclass

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
    "mpegts": ("an MPEG transport stream", "mpegts", "mpegts"),
    "svx": ("an Amiga IFF 8SVX file", "svx", "iff"),
    "nist": ("a NIST Sphere file", "nist", "nistsphere"),
    "avi": ("an AVI video, which is not read: extract its sound, ffmpeg -i in.avi out.wav",),
    "mpegps": ("an MPEG program stream, which is not read: extract its sound, ffmpeg -i in.mpg out.wav",),
    "realmedia": ("RealMedia, which is not read: convert it, ffmpeg -i in.rm out.wav",),
    "dts": ("a DTS stream, which is not read: convert it, ffmpeg -i in.dts out.wav",),
    "dsd": ("DSD audio, which is not read: convert it, ffmpeg -i in.dsf out.wav",),
    "musepack": ("Musepack audio, which is not read: convert it, ffmpeg -i in.mpc out.wav",),
    "tak": ("TAK audio, which is not read: convert it, ffmpeg -i in.tak out.wav",),
    "shorten": ("Shorten audio, which is not read: convert it, ffmpeg -i in.shn out.wav",),
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

# offset, bytes, kind
MAGIC = (
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
    (0, b"NIST_1A", "nist"),
    (0, b"\x00\x00\x01\xba", "mpegps"),
    (0, b".RMF", "realmedia"),
    (0, b"\x7f\xfe\x80\x01", "dts"),
    (0, b"DSD ", "dsd"),
    (0, b"FRM8", "dsd"),
    (0, b"MPCK", "musepack"),
    (0, b"MP+", "musepack"),
    (0, b"tBaK", "tak"),
    (0, b"ajkg", "shorten"),
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
