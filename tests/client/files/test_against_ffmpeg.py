"""Whatever ffmpeg decodes is read to the same length, or refused: containers, codecs, pipes, files that were joined."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gomin_client.errors import FileError
from gomin_client.files import audio
from tests.support import tool

FRAME = 1152  # samples of the longest frame of a lossy codec here

# extension, muxer, encoder with its options
WRITTEN = [
    *(("wav", "wav", codec) for codec in ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_mulaw")),
    *(("wav", "wav", codec) for codec in ("adpcm_ima_wav", "adpcm_ms", "libmp3lame -q:a 5")),
    ("rf64", "wav -rf64 always", "pcm_s16le"),
    ("w64", "w64", "pcm_f32le"),
    ("aiff", "aiff", "pcm_s16be"),
    ("aiff", "aiff", "pcm_f32be"),
    ("au", "au", "pcm_s16be"),
    ("au", "au", "pcm_mulaw"),
    *(("caf", "caf", codec) for codec in ("pcm_s16le", "pcm_f32be", "alac")),
    ("voc", "voc", "pcm_s16le"),
    ("flac", "flac", "flac"),
    *(("ogg", "ogg", codec) for codec in ("libvorbis", "libopus -ar 48000", "flac", "libspeex -ar 16000")),
    ("mp3", "mp3", "libmp3lame -b:a 128k"),
    ("mp3", "mp3", "libmp3lame -q:a 5"),
    ("mp2", "mp2", "mp2"),
    *(("m4a", "ipod", codec) for codec in ("aac", "alac")),
    *(("mp4", "mp4", codec) for codec in ("aac", "libopus -ar 48000", "libmp3lame")),
    ("mov", "mov", "pcm_s16le"),
    *(("webm", "webm", codec) for codec in ("libopus -ar 48000", "libvorbis")),
    *(("mka", "matroska", codec) for codec in ("flac", "aac", "pcm_s16le", "libmp3lame")),
    ("aac", "adts", "aac"),
    ("wma", "asf", "wmav2"),
    ("ac3", "ac3", "ac3"),
    ("flv", "flv", "libmp3lame"),
    ("mpegts", "mpegts", "aac"),
    ("tta", "tta", "tta"),
    ("wv", "wv", "wavpack"),
]
# compressed samples whose number is not known, with a header in their midst: ffmpeg decodes the header, too
REFUSED_IF_JOINED = {"adpcm_ima_wav", "adpcm_ms", "libmp3lame -q:a 5"}


def run_ffmpeg(arguments: str, *files: str | Path) -> bytes:
    """Its standard output; empty if it fails."""
    command = [tool("ffmpeg"), "-v", "error", "-nostdin", "-y", *arguments.split(), *map(str, files)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else b""


def decoded(path: Path) -> int:
    """Samples that ffmpeg decodes."""
    return len(run_ffmpeg(f"-i {path} -map 0:a:0 -f f32le -")) // 4


def written(path: Path, muxer: str, codec: str, is_piped: bool) -> None:
    noise = "-f lavfi -i anoisesrc=d=1.7:r=44100:a=0.3:seed=1 -ac 1 -ar 44100"
    options = f"{noise} -c:a {codec} -strict -2"
    if not is_piped:
        run_ffmpeg(f"{options} -f {muxer}", path)
    else:
        content = run_ffmpeg(f"{options} -f {muxer} -")
        # some containers are written into a pipe only in fragments
        path.write_bytes(content or run_ffmpeg(f"{options} -movflags frag_keyframe+empty_moov -f {muxer} -"))


@pytest.mark.slow
@pytest.mark.parametrize("is_piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize(("extension", "muxer", "codec"), WRITTEN)
def test_the_same_length(tmp_path: Path, extension: str, muxer: str, codec: str, is_piped: bool) -> None:
    single, joined = tmp_path / f"single.{extension}", tmp_path / f"joined.{extension}"
    written(single, muxer, codec, is_piped)
    content = single.read_bytes() if single.exists() else b""
    if not content:
        pytest.skip(f"this ffmpeg does not write {muxer} with {codec}")
    joined.write_bytes(content * 2)

    expected = decoded(single)
    recording = audio.read(single)
    assert recording.warning == ""
    # ffmpeg does not find the samples of a few streams, of AIFF for example, which are there all the same
    assert abs(recording.samples.shape[1] - (expected or 1.7 * recording.rate)) <= FRAME

    expected = decoded(joined)
    if extension == "flac":
        expected = 2 * recording.samples.shape[1]  # ffmpeg 5 loses three frames where they are joined
    if extension == "wav" and codec in REFUSED_IF_JOINED and (is_piped or "mp3" in codec):
        with pytest.raises(FileError, match="several files in one; split it"):
            audio.read(joined)
    elif expected:
        recording = audio.read(joined)
        assert abs(recording.samples.shape[1] - expected) <= FRAME
        assert "truncated" not in recording.warning
