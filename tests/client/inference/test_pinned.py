"""Requests to a model: deadlines, batches, and answers that are not audio."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gomin_client import Connection, GominError, MelConfig, Vocoder
from gomin_client.contract.model import DIFFUSION, ModelContract
from gomin_client.errors import ContractError, UsageError
from gomin_client.transports.mock import Call, MockModel, MockTransport

CONFIG = MelConfig(sample_rate=1000, win_length=20, hop_length=10, n_mels=4)


def silence(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros((len(mel), mel.shape[-1] * CONFIG.hop_length), np.float32)


def answering(outputs: dict[str, NDArray[Any]]) -> MockTransport:
    """A server that answers with anything."""
    vocoder = MockModel.vocoder(silence, CONFIG)
    return MockTransport({"gomin_gan": MockModel(lambda _: outputs, vocoder.parameters)})


@given(st.floats(0, 1e5), st.integers(1, 1000))
def test_deadlines_grow_with_the_work(seconds: float, steps: int) -> None:
    with Vocoder(MockTransport({"gomin_gan": MockModel.vocoder(silence, CONFIG)})) as vocoder:
        vocoder._steps = steps
        assert vocoder._deadline(0) == 60
        assert vocoder._deadline(seconds) == 60 + 60 * seconds * steps


def test_requests_carry_the_deadline() -> None:
    transport = MockTransport({"gomin_gan": MockModel.vocoder(silence, CONFIG)})
    mel = np.zeros((2, 4, 200), np.float32)
    Vocoder(transport).synthesize(mel)
    Vocoder(transport, connection=Connection(timeout_s=7)).synthesize(mel)

    assert [call.timeout_s for call in transport.calls] == [60 + 60 * 2 * 2.0, 7]


def test_no_request_exceeds_the_largest_batch() -> None:
    model = MockModel(lambda call: {"audio": silence(call.inputs["mel"])[:, np.newaxis]},
                      MockModel.vocoder(silence, CONFIG).parameters, max_batch_size=3)  # fmt: skip
    transport = MockTransport({"gomin_gan": model})

    assert Vocoder(transport).synthesize(np.zeros((8, 4, 5), np.float32)).shape == (8, 50)
    assert [len(call.inputs["mel"]) for call in transport.calls] == [3, 3, 2]


def bounded(max_frames: int) -> MockTransport:
    vocoder = MockModel.vocoder(silence, CONFIG)
    model = MockModel(vocoder.answer, {**vocoder.parameters, "gomin.max_frames": str(max_frames)})
    return MockTransport({"gomin_gan": model})


def test_no_request_exceeds_the_models_number_of_frames() -> None:
    transport = bounded(200)
    with Vocoder(transport) as vocoder:
        assert (vocoder.window, Vocoder(bounded(600)).window) == (200, 512)
        assert vocoder.synthesize(np.zeros((5, 4, 70), np.float32)).shape == (5, 700)
        vocoder.synthesize(np.zeros((4, 900), np.float32))

    shapes = [call.inputs["mel"].shape for call in transport.calls]
    assert [shape[0] for shape in shapes[:3]] == [2, 2, 1]
    assert all(shape[0] * shape[2] <= 200 for shape in shapes)


def test_a_window_beyond_the_models_number_of_frames_is_refused() -> None:
    with pytest.raises(UsageError, match="a window of 201 frames: the model takes at most 200 in one request"):
        Vocoder(bounded(200), window=201)
    with Vocoder(bounded(200)) as vocoder, pytest.raises(UsageError, match="a window of 300 frames: the model takes"):
        vocoder.with_window(300)
    with pytest.raises(ContractError, match=r"at most 64 frames in one request .* windows need more than 64"):
        Vocoder(bounded(64))


def test_the_newest_version_is_pinned() -> None:
    model = MockModel.vocoder(silence, CONFIG)
    transport = MockTransport({"gomin_gan": MockModel(model.answer, model.parameters, versions=(1, 3))})
    with Vocoder(transport) as vocoder:
        transport.repository = {"gomin_gan": MockModel(model.answer, model.parameters, versions=(1, 3, 4))}
        vocoder.synthesize(np.zeros((4, 5), np.float32))

    assert vocoder.version == transport.calls[0].version == 3
    assert transport.closed


def test_a_diffusion_model_gets_its_seed_position_and_chain() -> None:
    def answer(call: Call) -> dict[str, NDArray[np.float32]]:
        return {"audio": silence(call.inputs["mel"])[:, np.newaxis]}

    parameters = ModelContract(DIFFUSION, CONFIG, halo_frames=2, num_diffusion_steps=50).to_parameters()
    transport = MockTransport({"gomin_diffusion": MockModel(answer, parameters)})
    with Vocoder(transport, "diffusion", sampler="ddim", steps=3, window=30) as vocoder:
        assert (vocoder.chain_halo_frames, vocoder.first_window, vocoder.takes_seed) == (6, 22, True)
        vocoder.synthesize(np.zeros((4, 60), np.float32), seed=7)

    calls = sorted(transport.calls, key=lambda call: int(call.inputs["first_sample"][0, 0]))
    assert [int(call.inputs["first_sample"][0, 0]) for call in calls] == [0, 180, 300]
    assert all(call.inputs["seed"].tolist() == [[7]] for call in calls)
    assert all(call.parameters["sampler"] == "ddim" and call.parameters["steps"] == 3 for call in calls)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "without the output audio; it sent nothing"),
        ({"noise": np.zeros(1)}, "without the output audio; it sent noise"),
        ({"audio": np.zeros((1, 1, 50), np.int32)}, "audio of int32; expected float32"),
        ({"audio": np.zeros((1, 50), np.float32)}, r"shape \(1, 50\); expected \(1, 1, 50\)"),
        ({"audio": np.zeros((1, 1, 49), np.float32)}, r"shape \(1, 1, 49\)"),
        ({"audio": np.full((1, 1, 50), np.nan, np.float32)}, "NaN or infinite samples"),
        ({"audio": np.full((1, 1, 50), -3e38, np.float32)}, "samples up to 3e\\+38"),
    ],
)
def test_an_answer_that_is_not_audio_is_an_error(outputs: dict[str, NDArray[Any]], words: str) -> None:
    with Vocoder(answering(outputs)) as vocoder, pytest.raises(GominError, match=words) as caught:
        vocoder.synthesize(np.zeros((4, 5), np.float32))
    assert "mock:: model gomin_gan" in str(caught.value)
