"""Audio and mels as bytes, block by block."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from gomin_client import UsageError
from gomin_client.files import streams

WAVE = np.random.default_rng(0).uniform(-1, 1, (2, 100)).astype(np.float32)


@pytest.mark.parametrize(("subtype", "tolerance"), [(None, 2 / 32768), ("16", 2 / 32768), ("float", 0)])
def test_blocks_of_a_wav_file(subtype: str | None, tolerance: float) -> None:
    blocks = list(streams.encode([WAVE[:, :30], WAVE[:, 30:]], 24000, ".wav", subtype))

    read, rate = soundfile.read(io.BytesIO(b"".join(blocks)), dtype="float32")
    assert (len(blocks), rate) == (2, 24000)
    np.testing.assert_allclose(read, WAVE.T, rtol=0, atol=tolerance)


def test_bare_samples_are_clipped_at_16_bits() -> None:
    (block,) = streams.encode([np.float32([[-2, 0, 2]])], 24000, ".raw", None)

    assert np.frombuffer(block, "<i2").tolist() == [-32767, 0, 32767]


def test_frames() -> None:
    mel = np.random.default_rng(0).uniform(0, 1, (4, 7)).astype(np.float32)

    np.testing.assert_array_equal(streams.decode_frames(mel.T.tobytes(), 4), mel)


def test_subtypes_that_cannot_be_streamed() -> None:
    streams.check_subtype(".wav", "float")
    with pytest.raises(UsageError, match="expected 16 or float"):
        streams.check_subtype(".wav", "24")


def test_numpy_files_by_their_first_bytes() -> None:
    arrays, archive = io.BytesIO(), io.BytesIO()
    np.save(arrays, WAVE)
    np.savez(archive, melspec=WAVE)

    found = [streams.numpy_extension(data) for data in (arrays.getvalue(), archive.getvalue(), b"RIFF", b"")]
    assert found == [".npy", ".npz", "", ""]
