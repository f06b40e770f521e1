"""Arrays and blocks from Python code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gomin_client.errors import SuspiciousAudioError, UsageError
from gomin_client.inference.checks import (
    Blocks,
    as_floats,
    checked_rate,
    checked_wave,
)

BLOCK = np.arange(8, dtype=np.float32).reshape(2, 4)


def as_is(block: NDArray[np.float32]) -> NDArray[np.float32]:
    return block


class TestBlocks:
    def test_an_axis_is_added_and_taken_away(self) -> None:
        single = Blocks([BLOCK[0], BLOCK[1]], 1, as_is, "channels")
        assert [block.shape for block in single] == [(1, 4), (1, 4)]
        assert [part.shape for part in single.restored([BLOCK[:1]])] == [(4,)]

        several = Blocks([BLOCK], 1, as_is, "channels")
        assert [block.shape for block in several] == [(2, 4)]
        assert [part.shape for part in several.restored([BLOCK])] == [(2, 4)]

    def test_blocks_without_anything_new_are_left_out(self) -> None:
        assert len(list(Blocks([BLOCK[:, :0], BLOCK], 1, as_is, "channels"))) == 1
        assert len(list(Blocks([BLOCK.T[:0], BLOCK.T], 1, np.transpose, "channels", time_first=True))) == 1

    @pytest.mark.parametrize("second", [BLOCK[:1], BLOCK[0]])
    def test_another_number_of_rows_is_refused(self, second: NDArray[np.float32]) -> None:
        with pytest.raises(UsageError, match="after blocks with 2 channels: expected the same"):
            list(Blocks([BLOCK, second], 1, as_is, "channels"))


class TestLevel:
    def test_a_waveform_can_be_forced(self) -> None:
        wave = np.full(10, 32767, np.float32)

        with pytest.raises(SuspiciousAudioError):
            checked_wave(wave)
        np.testing.assert_array_equal(checked_wave(wave, force=True), wave)


class Foreign:
    """An array of another library."""

    def __init__(self, values: list[float], error: Exception | None = None) -> None:
        self.values = values
        self.error = error

    def __array__(self, dtype: object = None) -> NDArray[np.float64]:
        if self.error is not None:
            raise self.error
        return np.asarray(self.values)


class TestArrays:
    @pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
    @pytest.mark.parametrize("grad", [False, True])
    def test_torch(self, name: str, grad: bool) -> None:
        torch = pytest.importorskip("torch")

        tensor = torch.tensor([[0.5, -0.25]], dtype=getattr(torch, name), requires_grad=grad)
        for given in (tensor, tensor.T.contiguous().T, [tensor[0]], -tensor * -1):
            np.testing.assert_array_equal(as_floats(given, "mel"), [[0.5, -0.25]])

    def test_torch_tensors_without_values(self) -> None:
        torch = pytest.importorskip("torch")

        with pytest.raises(UsageError, match="mel is a Tensor that is not an array of numbers"):
            as_floats(torch.zeros(3, device="meta"), "mel")

    def test_bfloat16_of_jax_and_tensorflow(self) -> None:
        ml_dtypes = pytest.importorskip("ml_dtypes")
        np.testing.assert_array_equal(as_floats(np.array([0.5], ml_dtypes.bfloat16), "mel"), [0.5])

    @pytest.mark.parametrize(
        "given",
        [
            [0.5, -0.25],
            (0.5, np.float32(-0.25)),
            Foreign([0.5, -0.25]),
            np.array([0.5, -0.25], ">f8"),
            np.array([0.5, -0.25], np.longdouble),
            memoryview(np.array([0.5, -0.25])),
            np.ma.masked_array([0.5, -0.25], [False, False]),
        ],
    )
    def test_other_libraries(self, given: object) -> None:
        made = as_floats(given, "mel")
        assert made.dtype == np.float32
        np.testing.assert_array_equal(made, [0.5, -0.25])

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ("mel.npy", "'mel.npy' is a str: expected an array"),
            (b"x", "is a bytes"),
            (Path("mel.npy"), "is a PosixPath: expected an array"),
            ([[0.5], [0.5, 0.5]], "mel is a list that is not an array of numbers"),
            ([np.zeros((2, 3)), np.zeros((2, 4))], "pass recordings or mels of several lengths one by one"),
            (None, "mel is a NoneType of object: expected an array of floats"),
            ({"mel": 1}, "mel is a dict of object"),
            (np.array([1j]), "complex128"),
            (np.array(["a"]), "<U1"),
            (np.array([None]), "object"),
            (np.array([1, 2]), "int64: expected floats, full scale"),
            (np.ma.masked_array([0.5, 1.0], [True, False]), "masked values"),
            (Foreign([1.0], RuntimeError("not on this device")), "mel is a Foreign .*not on this device"),
            (iter([0.5]), "of object"),
        ],
    )
    def test_what_is_no_array(self, given: object, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            as_floats(given, "mel")

    def test_integers_where_they_make_sense(self) -> None:
        np.testing.assert_array_equal(as_floats(np.array([0, 1]), "mel", integers=True), [0, 1])


class TestWaves:
    def test_channels_first_and_last(self) -> None:
        assert checked_wave(np.zeros((2, 100))).shape == (2, 100)
        assert checked_wave(np.zeros((100, 2)), channels_last=True).shape == (2, 100)
        assert checked_wave(np.zeros(100), channels_last=True).shape == (100,)

    def test_an_axis_is_not_guessed(self) -> None:
        """Blocks of sounddevice, (64, 1), would be 64 channels of a sample each."""
        with pytest.raises(UsageError, match=r"64 channels of 1 samples: .*pass `channels_last=True`"):
            checked_wave(np.zeros((64, 1)))
        with pytest.raises(UsageError, match=r"64 channels of 2 samples: .*leave `channels_last=True` out"):
            checked_wave(np.zeros((2, 64)), channels_last=True)
        assert checked_wave(np.zeros((32, 1))).shape == (32, 1)

    @pytest.mark.parametrize(
        ("wave", "words"),
        [
            (np.zeros(0), "at least one sample"),
            (np.zeros((1, 2, 3)), r"shape \(1, 2, 3\): expected \(samples,\)"),
            (0.5, r"shape \(\)"),
            ([0.5, np.nan], "NaN or infinite"),
            ([1e39], "NaN or infinite"),
        ],
    )
    def test_what_is_no_wave(self, wave: object, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            checked_wave(wave)

    @pytest.mark.parametrize(
        "rate", [1e300, 1e-300, 10**400, 0, -1, "24000", None, True, float("nan"), float("inf"), np.float32(0)]
    )
    def test_sample_rates(self, rate: object) -> None:
        with pytest.raises(UsageError, match=r"sample rate .*: expected a number of Hz, from 100 to 100000000"):
            checked_rate(rate)
        assert checked_rate(np.int32(8000)) == 8000
        assert checked_rate(22050.5) == 22050.5
