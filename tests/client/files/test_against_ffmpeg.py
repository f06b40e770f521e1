"""Whatever ffmpeg decodes is read to the same length, or refused: containers, codecs, pipes, files that were joined."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

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


# the places of LFE channels, which encoders cut above 120 Hz, have 60 Hz
SURROUND = {"3.0": 3, "5.0": 5, "5.1": 6, "6.1": 7, "7.1": 8}
HERTZ = [300, 500, 700, 60, 900, 1100, 1300, 1500]


def loudest(samples: NDArray[np.float32]) -> list[int]:
    """The frequency in Hz of each channel, (samples, channels) of one second."""
    return [int(hertz) for hertz in np.argmax(np.abs(np.fft.rfft(samples[:48000], axis=0)), axis=0)]


@pytest.mark.parametrize("codec", ["libvorbis", "libopus -mapping_family 1", "libopus -mapping_family 255", "flac"])
@pytest.mark.parametrize("layout", SURROUND)
def test_surround_channels_are_in_the_order_of_wav(tmp_path: Path, layout: str, codec: str) -> None:
    channels = SURROUND[layout]
    hertz = [hertz for hertz in HERTZ if hertz != 60 or ".1" in layout][:channels]
    source = "|".join(f"0.3*sin(2*PI*{each}*t)" for each in hertz)
    run_ffmpeg(f"-f lavfi -i aevalsrc={source}:c={layout}:s=48000:d=1.1 -c:a {codec} -f ogg", tmp_path / "a.ogg")
    if not (tmp_path / "a.ogg").exists():
        pytest.skip(f"this ffmpeg does not write {layout} with {codec}")
    content = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "joined.ogg").write_bytes(content * 2)

    read = audio.read(tmp_path / "a.ogg").samples
    assert loudest(read.T) == hertz
    np.testing.assert_array_equal(audio.read(tmp_path / "joined.ogg").samples[:, : read.shape[1]], read)
    if channels == 6 and codec != "flac":  # what is written, too
        subtype = "opus" if "opus" in codec else "vorbis"
        audio.write(tmp_path / "b.ogg", read, 48000, subtype)
        again = np.frombuffer(run_ffmpeg(f"-i {tmp_path / 'b.ogg'} -f f32le -"), np.float32).reshape(-1, channels)
        assert loudest(again) == loudest(audio.read(tmp_path / "b.ogg").samples.T) == hertz


TAG = b"TAG" + bytes(125)


@pytest.mark.parametrize(
    ("cut", "tail"),
    [(0, bytes(5000)), (0, b"<html>gone</html>\n" * 300), (150, TAG), (150, bytes(2000)), (0, TAG), (150, b"")],
    ids=["zeros", "page", "tag in a frame", "zeros in a frame", "tag", "cut"],
)
def test_mp3_that_is_followed_by_something_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], cut: int, tail: bytes
) -> None:
    """A constant bit rate, and no Xing header: padded by a recorder, or joined to a server's error page."""
    written(tmp_path / "a.mp3", "mp3", "libmp3lame -b:a 64k -write_xing 0 -id3v2_version 0", is_piped=False)
    content = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "b.mp3").write_bytes(content[: len(content) - cut] + tail)

    whole, recording = (audio.read(tmp_path / name).samples for name in ("a.mp3", "b.mp3"))

    assert whole.shape[1] - recording.shape[1] in ((0,) if not cut else (0, FRAME))
    np.testing.assert_array_equal(recording, whole[:, : recording.shape[1]])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("muxer", "codec", "words"),
    [("mpeg", "mp2", "an MPEG program stream"), ("avi", "libmp3lame", "an AVI video"), ("dts", "dca", "a DTS stream")],
)
def test_mpeg_audio_is_not_picked_out_of_a_video(tmp_path: Path, muxer: str, codec: str, words: str) -> None:
    written(tmp_path / "a.mp3", muxer, codec, is_piped=False)
    if not (tmp_path / "a.mp3").exists():
        pytest.skip(f"this ffmpeg does not write {muxer}")

    with pytest.raises(FileError, match=f"its content is {words}, which is not read: .*ffmpeg -i"):
        audio.read(tmp_path / "a.mp3")


@pytest.mark.parametrize("options", ["8svx -c 2", "8svx -c 1", "sph -c 1 -b 24", "sph -c 2 -b 32", "sph -c 2 -b 16"])
def test_variants_that_libsndfile_does_not_have(tmp_path: Path, options: str) -> None:
    extension, _, rest = options.partition(" ")
    source, path = tmp_path / "a.wav", tmp_path / f"a.{extension}"
    synth = "-n -r 24000 -c 2 -b 16 a.wav synth 0.5 sine 440 sine 700 gain -3"
    for arguments in (synth, f"-D a.wav {rest} {path.name}"):
        subprocess.run([tool("sox"), "-V1", *arguments.split()], cwd=tmp_path, check=True, timeout=60)
    path = path.rename(path.with_suffix(".svx")) if extension == "8svx" else path

    expected, samples = audio.read(source).samples, audio.read(path).samples

    expected = expected if len(samples) == 2 else expected.mean(axis=0, keepdims=True)
    np.testing.assert_allclose(samples, expected, rtol=0, atol=2 / 128)


def test_a_compressed_nist_file_is_named(tmp_path: Path) -> None:
    header = b"NIST_1A\n   1024\nsample_rate -i 16000\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
    (tmp_path / "a.sph").write_bytes(header.ljust(1024) + bytes(range(256)) * 9)

    with pytest.raises(FileError, match="it is a NIST Sphere file that is compressed; unpack it: sph2pipe -f wav"):
        audio.read(tmp_path / "a.sph")
