"""Registered schemes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from gomin_client import Connection, ServerError, UsageError, Vocoder
from gomin_client.cli.main import app
from gomin_client.transports.registry import connect, connect_once, parse
from tests.client.transports import toy_transport
from tests.support import EXAMPLES, invoke


def test_an_own_scheme_is_one_file(tmp_path: Path) -> None:
    """The library and the command line take its URLs once it is imported."""
    with Vocoder("toy:box") as vocoder:
        assert vocoder.url == "toy:box"
        assert not vocoder.synthesize(np.zeros((128, 3), np.float32)).any()

    result = invoke(app, "reconstruct", EXAMPLES[0], "-o", tmp_path / "a.wav", "--url", "toy:box")
    assert result.returncode == 0, result.stderr
    assert not soundfile.read(tmp_path / "a.wav")[0].any()
    assert "gomin_gan" in invoke(app, "info", "--url", "toy:box").stdout


def test_own_schemes_are_named_where_one_is_unknown() -> None:
    with pytest.raises(UsageError, match=r"unknown scheme 'ftp'; expected .*grpc://HOST:PORT.*; or toy:"):
        parse("ftp://host")


def test_a_path_is_a_model_repository(tmp_path: Path) -> None:
    assert connect(tmp_path).url == f"local:{tmp_path}"


def test_a_transport_is_taken_as_it_is() -> None:
    assert connect(toy_transport.ToyTransport("here")).url == "toy:here"


def test_a_transport_of_connect_is_not_repeated_twice() -> None:
    attempts = 0

    class Lost(toy_transport.ToyTransport):
        def infer(self, *_: Any) -> dict[str, Any]:
            nonlocal attempts
            attempts += 1
            raise ServerError("lost")

    vocoder = Vocoder(connect(Lost("here"), Connection(retry_for_s=0)))  # by default, a minute
    with vocoder, pytest.raises(ServerError, match=r"^lost$"):
        vocoder.synthesize(np.zeros((128, 3), np.float32))
    assert attempts == 1


def test_several_urls_of_a_scheme_that_does_not_balance() -> None:
    with pytest.raises(UsageError, match="only gRPC balances"):
        connect(["toy:a", "toy:b"])


@pytest.mark.parametrize(
    "url", ["http://me:secret@host", "me:secret@host:80", "ftp://me:secret@host", "x://h?k=secret"]
)
def test_credentials_in_a_url_are_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect(url)
    assert "secret" not in str(caught.value)
    assert "secret" not in str(caught.value.__cause__)


def test_a_transport_without_repetitions() -> None:
    transport = connect_once("grpc://127.0.0.1:1", Connection(wait_s=0.5))
    with transport, pytest.raises(ServerError) as caught:
        transport.models()
    assert "tried for" not in str(caught.value)
