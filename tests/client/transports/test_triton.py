"""Triton's answers that a client treats as a server that is unavailable for a while."""

import pytest

from gomin_client import Connection
from gomin_client.errors import GominError, InferenceError, ServerError
from gomin_client.transports.registry import connect
from gomin_client.transports.triton import RefusedError, TritonTransport


def error_of(status: str, message: str) -> GominError:
    transport = connect("http://127.0.0.1:1", Connection(retry_for_s=0))
    inner = transport._inner  # type: ignore[attr-defined]
    assert isinstance(inner, TritonTransport)
    with pytest.raises(GominError) as caught, inner.errors(timeout_s=1):
        raise RefusedError(status, message)
    transport.close()
    return caught.value


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("503", "[request id: 1] Exceeds maximum queue size"),
        ("StatusCode.UNAVAILABLE", "[request id: 1] Request timeout expired"),
        ("StatusCode.INTERNAL", "gomin_diffusion: gomin_denoiser: [request id: 2] Exceeds maximum queue size"),
        ("500", "gomin_diffusion: gomin_denoiser: [request id: 2] Request timeout expired"),
    ],
)
def test_a_full_queue_is_a_server_to_try_again_also_behind_a_chain(status: str, message: str) -> None:
    error = error_of(status, message)

    assert type(error) is ServerError  # which is repeated
    assert "http://127.0.0.1:1 is overloaded" in str(error)


def test_a_chain_on_a_server_that_stops_is_tried_again() -> None:
    message = "gomin_diffusion: gomin_denoiser: Model gomin_denoiser - Error when running inference: Server not ready"
    error = error_of("StatusCode.INTERNAL", message)

    assert type(error) is ServerError  # which is repeated
    assert "http://127.0.0.1:1 must be restarted, or is restarting" in str(error)


def test_other_errors_of_a_server_are_not_repeated() -> None:
    assert type(error_of("500", "gomin_diffusion: gomin_denoiser: no memory")) is InferenceError
