"""Servers that answer as a Triton server does, except to inferences: over HTTP and gRPC, on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gomin_client import MelConfig
from gomin_client.contract.model import ModelContract

PARAMETERS = ModelContract("gan", MelConfig(), halo_frames=2).to_parameters()
LENGTH = "Inference-Header-Content-Length"


@dataclass
class Reply:
    """An HTTP response, byte by byte."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


def tensor(audio: np.ndarray, **changed: Any) -> Reply:
    """A reply with one output, whose description is changed."""
    data = audio.tobytes()
    output = {"name": "audio", "datatype": "FP32", "shape": list(audio.shape)}
    output |= {"parameters": {"binary_data_size": len(data)}, **changed}
    header = json.dumps({"outputs": [output]}).encode()
    return Reply(header + data, {LENGTH: str(len(header))})


def silence(frames: int) -> Reply:
    return tensor(np.zeros((1, 1, 256 * frames), np.float32))


@contextmanager
def http_server(infer: Callable[[dict[str, Any]], Reply], paths: Mapping[str, Reply] | None = None) -> Iterator[str]:
    """An HTTP server; the URL.

    Args:
        infer: takes the JSON of a request.
        paths: replies to other paths, by how they end; as a Triton server's if left out.
    """
    config = {"parameters": {name: {"string_value": value} for name, value in PARAMETERS.items()}, "max_batch_size": 8}
    replies = {
        "/live": Reply(b""),
        "/index": Reply(json.dumps([{"name": "gomin_gan", "version": "1", "state": "READY"}]).encode()),
        "/config": Reply(json.dumps(config).encode()),
        **(paths or {}),
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.endswith("/infer"):
                reply = infer(json.loads(body[: int(self.headers[LENGTH])]))
            else:
                reply = next(reply for end, reply in replies.items() if self.path.endswith(end))
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)
            self.close_connection = reply.headers.get("Content-Length", "") != ""

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def grpc_server(infer: Callable[[Any, grpc.ServicerContext], Any]) -> Iterator[str]:
    """A gRPC server; the URL. `infer` makes a `ModelInferResponse` of a `ModelInferRequest`."""

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ServerLive(self, request: Any, context: Any) -> Any:
            return service_pb2.ServerLiveResponse(live=True)

        def RepositoryIndex(self, request: Any, context: Any) -> Any:
            entry = service_pb2.RepositoryIndexResponse.ModelIndex(name="gomin_gan", version="1", state="READY")
            return service_pb2.RepositoryIndexResponse(models=[entry])

        def ModelConfig(self, request: Any, context: Any) -> Any:
            response = service_pb2.ModelConfigResponse()
            response.config.max_batch_size = 8
            for name, value in PARAMETERS.items():
                response.config.parameters[name].string_value = value
            return response

        def ModelInfer(self, request: Any, context: Any) -> Any:
            return infer(request, context)

    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None)
