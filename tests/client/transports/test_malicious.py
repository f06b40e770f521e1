"""Answers that make no sense: an error that names the server, for that file; never audio, a traceback or a hang."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from gomin_client import Connection, GominError, ServerError, Vocoder
from gomin_client.cli.main import app
from tests.client.transports.malicious import LENGTH, Reply, grpc_server, http_server, silence, tensor
from tests.support import invoke

FRAMES = 5
MEL = np.full((128, FRAMES), 0.3, np.float32)
AUDIO = np.zeros((1, 1, 256 * FRAMES), np.float32)
ONCE = Connection(retry_for_s=30)

HTML = b"<html><body>Please log in\x1b[2J</body></html>"
NONSENSE = {
    "no outputs": Reply(b'{"outputs": []}', {LENGTH: "15"}),
    "another output": tensor(AUDIO, name="video"),
    "a name that is no text": tensor(AUDIO, name={"a": 1}),
    "nothing but an object": Reply(b"{}", {LENGTH: "2"}),
    "outputs that are a number": Reply(b'{"outputs": 3}', {LENGTH: "14"}),
    "a list": Reply(b"[]", {LENGTH: "2"}),
    "a size of 2**40": tensor(AUDIO, shape=[1, 1, 2**40]),
    "sizes that overflow": tensor(AUDIO, shape=[2**40, 2**40, 2**40]),
    "a negative size": tensor(AUDIO, shape=[1, 1, -1]),
    "a shape of text": tensor(AUDIO, shape="big"),
    "more data than there is": tensor(AUDIO, parameters={"binary_data_size": 2**40}),
    "less than nothing": tensor(AUDIO, parameters={"binary_data_size": -4}),
    "no data size": tensor(AUDIO, parameters={}),
    "an announced body of 2**40": Reply(b"", {"Content-Length": str(2**40)}),
    "a header longer than the body": Reply(b"{}", {LENGTH: "1000"}),
    "a header length of text": Reply(b"{}", {LENGTH: "many"}),
    "a body that ends early": Reply(silence(FRAMES).body, {**silence(FRAMES).headers, "Content-Length": "99999"}),
    "a body that is cut": Reply(silence(FRAMES).body[:-40], silence(FRAMES).headers),
    "JSON that is cut": Reply(b'{"outputs": [{"na', {LENGTH: "17"}),
    "JSON that is deep": Reply(b"[" * 100_000, {LENGTH: "100000"}),
    "JSON without tensors": Reply(b'{"outputs": [{"name": "audio", "datatype": "FP32", "shape": [1], "data": [0.5]}]}'),
    "HTML": Reply(HTML, {"Content-Type": "text/html"}),
    "HTML that is an error": Reply(HTML, status=500),
    "gzip": Reply(gzip.compress(silence(FRAMES).body), {**silence(FRAMES).headers, "Content-Encoding": "gzip"}),
    "INT32": tensor(AUDIO.astype(np.int32), datatype="INT32"),
    "an unknown type": tensor(AUDIO, datatype="FP33"),
    "text": tensor(AUDIO, datatype="BYTES"),
    "3e38": tensor(AUDIO + np.float32(3e38)),
    "-3e38": tensor(AUDIO - np.float32(3e38)),
    "NaN": tensor(AUDIO * np.nan),
    "another length": silence(FRAMES + 1),
    "an error that is no text": Reply(b'{"error": {"a": "\\u001b[2J"}}', status=500),
    "a redirect": Reply(b"", {"Location": "http://127.0.0.1:1/"}, status=301),
    "nothing": Reply(b""),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_http(name: str) -> None:
    with (
        http_server(lambda _: NONSENSE[name]) as url,
        Vocoder(url, connection=ONCE) as vocoder,
        pytest.raises(GominError) as caught,
    ):
        vocoder.synthesize(MEL)

    assert url in str(caught.value)
    assert not isinstance(caught.value, ServerError)
    assert len(str(caught.value)) < 1000


def test_a_length_in_a_header_is_named() -> None:
    with (
        http_server(lambda _: NONSENSE["a header length of text"]) as url,
        Vocoder(url, connection=ONCE) as vocoder,
        pytest.raises(GominError, match="inference-header-content-length is 'many'; expected a number of bytes"),
    ):
        vocoder.synthesize(MEL)


def test_http_headers_without_end() -> None:
    with http_server(lambda _: Reply(b"", {f"x-{index}": "y" for index in range(200)})) as url:
        with Vocoder(url, connection=ONCE) as vocoder, pytest.raises(GominError, match="no valid answer") as caught:
            vocoder.synthesize(MEL)
        assert url in str(caught.value)


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("/live", Reply(HTML, status=404)),
        ("/index", Reply(HTML)),
        ("/index", Reply(b"{}")),
        ("/index", Reply(b"[1]")),
        ("/index", Reply(b'[{"name": "gomin_gan", "version": "x", "state": "READY"}]')),
        ("/index", Reply(b"", {"Content-Length": str(2**40)})),
        ("/config", Reply(HTML)),
        ("/config", Reply(b"[]")),
        ("/config", Reply(b'{"parameters": [1]}')),
        ("/config", Reply(b'{"max_batch_size": "many"}')),
        ("/config", Reply(b'{"max_batch_size": 1e400}')),
    ],
)
def test_http_descriptions(path: str, reply: Reply) -> None:
    with http_server(lambda _: silence(FRAMES), {path: reply}) as url:
        with pytest.raises(ServerError, match=r"is not a Triton server") as caught:
            Vocoder(url)
        assert url in str(caught.value)


def grpc_answers() -> dict[str, Any]:
    def answer(data: bytes | None = AUDIO.tobytes(), **output: Any) -> Any:
        response = service_pb2.ModelInferResponse()
        response.outputs.add(**{"name": "audio", "datatype": "FP32", "shape": AUDIO.shape, **output})
        if data is not None:
            response.raw_output_contents.append(data)
        return response

    return {
        "no outputs": service_pb2.ModelInferResponse(),
        "no data": answer(None),
        "another output": answer(name="video"),
        "a size of 2**40": answer(shape=[1, 1, 2**40]),
        "sizes that overflow": answer(shape=[2**40, 2**40, 2**40]),
        "a negative size": answer(shape=[1, 1, -1]),
        "data that is cut": answer(AUDIO.tobytes()[:-4]),
        "INT32": answer(datatype="INT32"),
        "an unknown type": answer(datatype="FP33"),
        "3e38": answer((AUDIO + np.float32(3e38)).tobytes()),
        "NaN": answer((AUDIO * np.nan).tobytes()),
        "another length": answer(AUDIO[..., 1:].tobytes(), shape=[1, 1, 256 * FRAMES - 1]),
    }


@pytest.mark.parametrize("name", grpc_answers())
def test_grpc(name: str) -> None:
    answer = grpc_answers()[name]
    with (
        grpc_server(lambda *_: answer) as url,
        Vocoder(url, connection=ONCE) as vocoder,
        pytest.raises(GominError) as caught,
    ):
        vocoder.synthesize(MEL)

    assert url in str(caught.value)
    assert not isinstance(caught.value, ServerError)


def test_the_batch_goes_on(tmp_path: Path) -> None:
    """One file gets nonsense; the others are made, and what the server says does not reach the terminal as it is."""
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", np.full((128, FRAMES + index), 0.3, np.float32))

    def infer(request: dict[str, Any]) -> Reply:
        frames = request["inputs"][0]["shape"][2]
        if frames == FRAMES + 1:
            return Reply(b'{"error": "\\u001b[2Jno"}', status=500)
        return silence(frames)

    with http_server(infer) as url:
        result = invoke(app, "synthesize", tmp_path, "--url", url)

    assert result.returncode == 1
    assert f"1.npy: {url} answered: \\x1b[2Jno" in result.stderr
    assert "\x1b" not in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == ["0.wav", "2.wav"]
