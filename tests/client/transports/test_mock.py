"""The transport without a server, as users of the library test with it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from gomin_client import Connection, InferenceError, MelConfig, MockModel, MockTransport, ServerError, Vocoder
from gomin_client.errors import UnknownModelError

MEL = np.full((1, 20, 3), 0.5, np.float32)


def loudness(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.repeat(mel.mean(axis=1), 256, axis=-1)


@pytest.fixture
def transport() -> MockTransport:
    return MockTransport({"gomin_gan": MockModel.vocoder(loudness, MelConfig(n_mels=20))})


def test_a_function_is_a_model(transport: MockTransport) -> None:
    with Vocoder(transport) as vocoder:
        assert vocoder.url == "mock:"
        np.testing.assert_array_equal(vocoder.synthesize(MEL[0]), np.full(768, 0.5, np.float32))

    (call,) = transport.calls
    assert (call.model, call.version) == ("gomin_gan", 1)
    np.testing.assert_array_equal(call.inputs["mel"], MEL)
    assert transport.closed


def test_it_fails_when_told_to(transport: MockTransport) -> None:
    with Vocoder(transport, connection=Connection(retry_for_s=60)) as vocoder:
        transport.fail(ServerError("gone"), ServerError("gone"))
        assert vocoder.synthesize(MEL[0]).shape == (768,)
        assert transport.errors == []

        transport.fail(InferenceError("no"))
        with pytest.raises(InferenceError, match="no"):
            vocoder.synthesize(MEL[0])


def test_its_models_are_listed(transport: MockTransport) -> None:
    assert transport.models() == ["gomin_gan"]
    with pytest.raises(UnknownModelError, match="mock: has no model other; it has gomin_gan"):
        Vocoder(transport, "other")
    assert transport.described == 1
