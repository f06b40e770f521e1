"""The mel front end as an ONNX model: equal to the client's for any audio, and an error where that has one."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.numpy_helper import to_array

from gomin_client.contract.model import ModelContract
from gomin_client.mel.features import MelConfig, mel_spectrogram
from gomin_export.onnx import front_end
from gomin_export.onnx.export import MAX_IR_VERSION
from tests.support import golden

BOUND = 40


def session(config: MelConfig, bound: int = BOUND) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the refusals of these tests
    described = ModelContract("mel", config, halo_frames=0, max_frames=bound)
    return onnxruntime.InferenceSession(front_end.serialized(described), options, providers=["CPUExecutionProvider"])


RELEASED = session(MelConfig())


@given(
    samples=st.integers(1, 3000),
    batch=st.integers(1, 3),
    gain=st.sampled_from([0.0, 1e-7, 1e-3, 1.0, 30.0, 1e30]),
    seed=st.integers(0, 99),
)
def test_it_equals_the_client_for_any_length_and_level(samples: int, batch: int, gain: float, seed: int) -> None:
    audio = (gain * np.random.default_rng(seed).standard_normal((batch, 1, samples))).astype(np.float32)

    (mel,) = RELEASED.run(None, {"audio": audio})

    assert mel.dtype == np.float32
    expected = np.stack([mel_spectrogram(wave) for wave in audio[:, 0]])
    np.testing.assert_allclose(mel, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "config",
    [
        MelConfig(16000, win_length=800, hop_length=200, n_mels=80),  # a transform longer than the window
        MelConfig(8000, win_length=5, hop_length=16, n_mels=2),  # a hop longer than the transform
        MelConfig(22050, win_length=2, hop_length=1, n_mels=1),
    ],
)
@pytest.mark.parametrize("samples", [1, 2, 15, 16, 17, 1000])
def test_it_equals_the_client_with_other_settings(config: MelConfig, samples: int) -> None:
    audio = np.random.default_rng(samples).uniform(-1, 1, (1, 1, samples)).astype(np.float32)

    (mel,) = session(config, bound=2000).run(None, {"audio": audio})

    np.testing.assert_allclose(mel[0], mel_spectrogram(audio[0, 0], config), rtol=1e-6, atol=1e-9)


def test_it_has_the_values_of_the_original_program() -> None:
    """Within the tolerances of the original's own float32: 1.5e-5 from -70 dB up, 5e-4 below."""
    recorded = golden("mel.npz")
    names = [name.removeprefix("wave_") for name in recorded if name.startswith("wave_")]
    run = session(MelConfig(), bound=10_000).run
    assert names
    for name in names:
        (mel,) = run(None, {"audio": recorded[f"wave_{name}"].reshape(1, 1, -1)})
        expected = recorded[f"mel_{name}"].reshape(mel.shape)
        error = np.abs(mel - expected)
        assert error[expected >= 0.3].max(initial=0) <= 1.5e-5, name
        assert error.max() <= 5e-4, name


def test_silence_is_exactly_zero() -> None:
    (mel,) = RELEASED.run(None, {"audio": np.zeros((2, 1, 1000), np.float32)})

    assert not mel.any()


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (np.zeros((1, 1, 0), np.float32), front_end.EMPTY),
        (np.zeros((0, 1, 7), np.float32), front_end.EMPTY),
        (np.array([[[0, np.nan]]], np.float32), front_end.NOT_FINITE),
        (np.array([[[0, np.inf]], [[0, 0]]], np.float32), front_end.NOT_FINITE),
        (np.array([[[-np.inf, np.inf]]], np.float32), front_end.NOT_FINITE),
        (np.zeros((1, 1, 256 * BOUND), np.float32), front_end.TOO_LONG.format(BOUND)),
        (np.zeros((BOUND // 2 + 1, 1, 256), np.float32), front_end.TOO_LONG.format(BOUND)),
    ],
)
def test_unusable_audio_is_an_error_that_says_why(audio: np.ndarray, words: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(Exception, match=f"INVALID_ARGUMENT.* Name:'{words}'"):
        RELEASED.run(None, {"audio": audio})


@pytest.mark.parametrize("shape", [(1, 1, 256 * BOUND - 1), (BOUND // 2, 1, 256)])
def test_the_bound_itself_is_accepted(shape: tuple[int, ...]) -> None:
    (mel,) = RELEASED.run(None, {"audio": np.zeros(shape, np.float32)})

    assert mel.shape[0] * mel.shape[2] == BOUND


def test_the_file_suits_the_native_backend() -> None:
    """ONNX Runtime 1.19: IR version ≤ 10, opset ≤ 20; output axes that the backend compares with config.pbtxt."""
    model = onnx.load_from_string(
        front_end.serialized(ModelContract("mel", MelConfig(), halo_frames=0, max_frames=BOUND))
    )

    assert model.ir_version <= MAX_IR_VERSION
    assert [entry.version for entry in model.opset_import] == [20]
    (output,) = model.graph.output
    sizes = [axis.dim_value or axis.dim_param for axis in output.type.tensor_type.shape.dim]
    assert sizes == ["batch", 128, "frames"]
    (filters,) = (to_array(tensor) for tensor in model.graph.initializer if tensor.name == "filters_per_floor")
    assert filters.dtype == np.float64
