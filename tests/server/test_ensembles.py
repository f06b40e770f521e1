"""gomin_mel and the ensembles on a real server, called as programs without our client call them."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from gomin_client import Vocoder
from gomin_client.mel.features import mel_spectrogram
from tests.support import EXAMPLES, RunningServer

Audio = NDArray[np.float32]


class Caller:
    """The published Triton client, over one protocol."""

    def __init__(self, server: RunningServer, protocol: str) -> None:
        self._module: ModuleType = {"grpc": tritonclient.grpc, "http": tritonclient.http}[protocol]
        address = getattr(server, protocol).removeprefix(f"{protocol}://")
        self._client = self._module.InferenceServerClient(address)

    def __call__(self, model: str, output: str, parameters: dict[str, Any] | None = None, **inputs: Audio) -> Audio:
        tensors = []
        for name, array in inputs.items():
            datatype = {"float32": "FP32", "uint64": "UINT64"}[array.dtype.name]
            tensors.append(self._module.InferInput(name, list(array.shape), datatype))
            tensors[-1].set_data_from_numpy(array)
        answer = self._client.infer(model, tensors, parameters=parameters)
        result: Audio = answer.as_numpy(output)
        return result


@pytest.fixture(params=["grpc", "http"])
def call(request: pytest.FixtureRequest, server: RunningServer) -> Caller:
    return Caller(server, request.param)


def recording(samples: int) -> Audio:
    """(samples,) at the models' sample rate."""
    with soundfile.SoundFile(EXAMPLES[0]) as file:
        return file.read(samples, dtype="float32", always_2d=True)[:, 0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("samples", [1, 256, 5000])
def test_the_mel_is_the_clients(call: Caller, samples: int) -> None:
    audio = np.stack([recording(samples), 3 * recording(samples)])

    mel = call("gomin_mel", "mel", audio=audio[:, np.newaxis])

    np.testing.assert_array_equal(mel, [mel_spectrogram(wave) for wave in audio])


@pytest.mark.parametrize("samples", [1, 256, 6000])
def test_a_reconstruction_is_the_clients(call: Caller, server: RunningServer, samples: int) -> None:
    audio = np.stack([recording(samples), -recording(samples)])

    reconstruction = call("gomin_reconstruct", "reconstruction", audio=audio[:, np.newaxis])

    assert reconstruction.shape == (2, 1, 256 * (1 + samples // 256))  # not trimmed
    with Vocoder(server.grpc) as vocoder:
        np.testing.assert_array_equal(reconstruction[:, 0], vocoder.reconstruct(audio, 24000, trim=False))


@pytest.mark.parametrize("chain", [{}, {"sampler": "ddim", "steps": 3}])
def test_a_reconstruction_by_diffusion_is_the_clients(
    call: Caller, server: RunningServer, chain: dict[str, Any]
) -> None:
    """Request parameters pass through the ensemble."""
    audio = np.stack([recording(1000), -recording(1000)])
    seed = np.full((2, 1), 2**40, np.uint64)

    reconstruction = call("gomin_reconstruct_diffusion", "reconstruction", chain, audio=audio[:, np.newaxis], seed=seed)

    assert reconstruction.shape == (2, 1, 1024)
    with Vocoder(server.grpc, model="diffusion", **chain) as vocoder:
        expected = vocoder.reconstruct(audio, 24000, trim=False, seed=2**40)
    np.testing.assert_array_equal(reconstruction[:, 0], expected)


SEED = np.zeros((1, 1), np.uint64)


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (np.zeros((1, 1, 0), np.float32), "audio has no samples"),
        (np.array([[[0, np.nan, 0]]], np.float32), "audio has samples that are NaN or infinite"),
        (np.array([[[np.inf]]], np.float32), "audio has samples that are NaN or infinite"),
    ],
)
@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("gomin_mel", "mel"),
        ("gomin_reconstruct", "reconstruction"),
        ("gomin_reconstruct_diffusion", "reconstruction"),
    ],
)
def test_unusable_audio_is_an_error(call: Caller, model: str, output: str, audio: Audio, words: str) -> None:
    seeds = {"seed": SEED} if "diffusion" in model else {}

    with pytest.raises(InferenceServerException, match=words) as refusal:
        call(model, output, audio=audio, **seeds)

    assert refusal.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")


def test_audio_that_is_too_long_is_an_error(server: RunningServer) -> None:
    call = Caller(server, "grpc")

    with pytest.raises(InferenceServerException, match=r"gomin_gan: at most \d+ frames in one request"):
        call("gomin_reconstruct", "reconstruction", audio=np.zeros((1, 1, 256 * 11_000), np.float32))


def test_settings_of_a_chain_that_make_no_sense_are_an_error(call: Caller) -> None:
    with pytest.raises(InferenceServerException, match="sampler 'nope'"):
        call(
            "gomin_reconstruct_diffusion",
            "reconstruction",
            {"sampler": "nope"},
            audio=np.zeros((1, 1, 300), np.float32),
            seed=SEED,
        )


def test_a_bad_request_fails_alone(server: RunningServer) -> None:
    """Requests of one length that arrive together: those of the others are answered."""
    good = recording(3000)[np.newaxis, np.newaxis]
    bad = np.full_like(good, np.nan)
    expected = Caller(server, "grpc")("gomin_reconstruct", "reconstruction", audio=good)
    outcomes: list[Any] = [None] * 12
    together = threading.Barrier(len(outcomes))

    def send(index: int) -> None:
        call = Caller(server, "grpc")
        together.wait()
        try:
            outcomes[index] = call("gomin_reconstruct", "reconstruction", audio=bad if index % 3 == 0 else good)
        except InferenceServerException as error:
            outcomes[index] = error

    threads = [threading.Thread(target=send, args=(index,)) for index in range(len(outcomes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for index, outcome in enumerate(outcomes):
        if index % 3 == 0:
            assert "NaN or infinite" in str(outcome)
        else:
            np.testing.assert_allclose(outcome, expected, rtol=0, atol=1e-5)


def test_ensembles_are_ready_and_known(server: RunningServer, repository: Path) -> None:
    client = tritonclient.http.InferenceServerClient(server.http.removeprefix("http://"))

    assert client.is_model_ready("gomin_reconstruct")
    metadata = client.get_model_metadata("gomin_reconstruct_diffusion")
    assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in metadata["inputs"]] == [
        ("audio", "FP32", [-1, 1, -1]),
        ("seed", "UINT64", [-1, 1]),
    ]
    (output,) = metadata["outputs"]
    assert (output["name"], output["shape"]) == ("reconstruction", [-1, 1, -1])
    assert (repository / "gomin_mel_diffusion").is_dir()  # the small diffusion model has mels of 32 bands
