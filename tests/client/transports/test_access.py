"""TLS and headers, against real servers that insist on them."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from gomin_client import Connection, Vocoder
from gomin_client.errors import AccessError, ServerError, UsageError
from gomin_client.transports.connection import parse_headers
from gomin_client.transports.registry import connect
from tests.support import RunningServer, assert_fails, run, serving

MEL = np.zeros((128, 3), np.float32)
TOKEN = "open-sesame"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Authority, server and client certificates as PEM files."""
    import trustme

    home = tmp_path_factory.mktemp("pki")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(home / "ca.pem")
    for name, identity in (("server", "localhost"), ("client", "client@example.org")):
        certificate = authority.issue_cert(identity)
        certificate.private_key_pem.write_to_path(home / f"{name}.key")
        for part in certificate.cert_chain_pems:
            part.write_to_path(home / f"{name}.pem", append=True)
    trustme.CA().cert_pem.write_to_path(home / "other.pem")
    return home


@pytest.fixture(scope="module")
def guarded(repository: Path, pki: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """TLS with client certificates over gRPC; inference over HTTP and gRPC for those who know the token."""
    options = ["--grpc-use-ssl", "1", "--grpc-use-ssl-mutual", "1", "--grpc-root-cert", pki / "ca.pem"]
    options += ["--grpc-server-cert", pki / "server.pem", "--grpc-server-key", pki / "server.key"]
    options += [f"--grpc-restricted-protocol=inference:token={TOKEN}", f"--http-restricted-api=inference:token={TOKEN}"]
    with serving(repository, tmp_path_factory.mktemp("guarded") / "log", *options) as server:
        yield server


def tls(pki: Path, **more: object) -> Connection:
    return Connection(ca=pki / "ca.pem", certificate=pki / "client.pem", key=pki / "client.key", **more)  # type: ignore[arg-type]


@pytest.mark.server
class TestGrpc:
    def test_certificates_and_headers_pass(self, guarded: RunningServer, pki: Path) -> None:
        url = f"grpcs://localhost:{guarded.grpc_port}"
        headers = {"triton-grpc-protocol-token": TOKEN}
        with Vocoder(url, connection=tls(pki, headers=headers)) as vocoder:
            assert vocoder.url == url
            assert vocoder.synthesize(MEL).shape == (768,)
        with Vocoder(
            f"dns:///localhost:{guarded.grpc_port}", connection=tls(pki, headers=headers, tls=True)
        ) as vocoder:
            assert vocoder.synthesize(MEL).shape == (768,)

    def test_without_the_header(self, guarded: RunningServer, pki: Path) -> None:
        """Triton calls this "unavailable"; it is not worth trying again."""
        with (
            Vocoder(f"grpcs://localhost:{guarded.grpc_port}", connection=tls(pki)) as vocoder,
            pytest.raises(AccessError, match=r"refuses access: .*`Connection\(headers=…\)`"),
        ):
            vocoder.synthesize(MEL)

    @pytest.mark.parametrize(
        ("scheme", "connection"),
        [("grpcs", {"ca": "ca.pem"}), ("grpcs", {}), ("grpcs", {"ca": "other.pem"}), ("grpc", {})],
    )
    def test_what_the_server_does_not_trust(
        self, guarded: RunningServer, pki: Path, scheme: str, connection: dict[str, str]
    ) -> None:
        files = {name: pki / file for name, file in connection.items()}
        with pytest.raises(ServerError, match=f"{scheme}://localhost"):
            Vocoder(f"{scheme}://localhost:{guarded.grpc_port}", connection=Connection(**files))  # type: ignore[arg-type]

    def test_command_line(self, guarded: RunningServer, pki: Path, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", MEL)
        (tmp_path / "headers").write_text(f"triton-grpc-protocol-token: {TOKEN}\n\n")
        url = f"grpcs://localhost:{guarded.grpc_port}"
        options = ["--ssl-ca", pki / "ca.pem", "--ssl-cert", pki / "client.pem", "--ssl-key", pki / "client.key"]

        assert_fails(run("gomin-client", "synthesize", tmp_path / "a.npy", "--url", url, *options), 3, "refuses access")
        result = run(
            "gomin-client", "synthesize", tmp_path / "a.npy", "--url", url, *options,
            "--header", f"@{tmp_path / 'headers'}", "--header", "x-request-id: 7",
        )  # fmt: skip

        assert result.returncode == 0, result.stderr
        assert (tmp_path / "a.wav").exists()


@pytest.mark.server
class TestHttp:
    def test_headers(self, guarded: RunningServer) -> None:
        with Vocoder(guarded.http, connection=Connection(headers={"token": TOKEN})) as vocoder:
            assert vocoder.synthesize(MEL).shape == (768,)
        with (
            Vocoder(guarded.http) as vocoder,
            pytest.raises(AccessError, match=r"refuses access: .*`Connection\(headers=…\)`"),
        ):
            vocoder.synthesize(MEL)

    def test_tls(self, server: RunningServer, pki: Path) -> None:
        """Triton's HTTP port has no TLS; a proxy in front of it provides it."""
        with terminating_tls(server.http_port, pki) as port:
            with Vocoder(f"https://localhost:{port}", connection=tls(pki)) as vocoder:
                assert vocoder.synthesize(MEL).shape == (768,)
            for connection in (Connection(), Connection(ca=pki / "ca.pem"), Connection(ca=pki / "other.pem")):
                with pytest.raises(ServerError, match="no Triton server at https://localhost"):
                    Vocoder(f"https://localhost:{port}", connection=connection)


@contextmanager
def terminating_tls(port: int, pki: Path) -> Iterator[int]:
    """A TLS port, for clients with certificates, in front of a plain one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pki / "server.pem", pki / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=connect_both, args=(plain,), daemon=True).start()

    def connect_both(plain: socket.socket) -> None:
        try:
            outside = context.wrap_socket(plain, server_side=True)
        except OSError:
            return
        inside = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=pump, args=(inside, outside), daemon=True).start()
        pump(outside, inside)

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    threading.Thread(target=serve, daemon=True).start()
    with closing(listener):
        yield listener.getsockname()[1]


class TestOptions:
    def test_headers(self, tmp_path: Path) -> None:
        (tmp_path / "h").write_text("Authorization: Bearer x:y\nb:c\n")

        assert parse_headers([f"@{tmp_path / 'h'}", "D-e: f "]) == {
            "authorization": "Bearer x:y", "b": "c", "d-e": "f",
        }  # fmt: skip

    @pytest.mark.parametrize("line", ["secret", "a b: c", "a: ü", "a: b\nc: d", "x-bin: 1", "grpc-timeout: 1", ": v"])
    def test_what_is_no_header(self, line: str) -> None:
        with pytest.raises(UsageError, match="header") as caught:
            parse_headers([line])
        assert "secret" not in str(caught.value)

    def test_header_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cannot be read"):
            parse_headers([f"@{tmp_path / 'missing'}"])

    @pytest.mark.parametrize(
        ("urls", "connection", "words"),
        [
            (["http://a"], {"ca": Path("ca.pem")}, "TLS options are for grpcs"),
            (["local:x"], {"tls": True}, "TLS options are for grpcs"),
            (["local:x"], {"headers": {"a": "b"}}, "headers are for servers"),
            (["grpcs://a"], {"ca": Path("missing.pem")}, "missing.pem: cannot be read"),
            (["grpcs://a", "grpcs://b"], {}, "share one name"),
            (["grpc://a", "grpcs://b"], {}, "either all with TLS, or none"),
            (["grpc://a", "http://b"], {}, "only gRPC balances"),
            (["local:a", "local:b"], {}, "only gRPC balances"),
            ([], {}, "no URL"),
        ],
    )
    def test_what_does_not_go_together(self, urls: list[str], connection: dict[str, object], words: str) -> None:
        with pytest.raises(UsageError, match=words):
            connect(urls, Connection(**connection))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "bad",
        [
            {"wait_s": -1},
            {"retry_for_s": float("nan")},
            {"timeout_s": 0},
            {"certificate": Path("a")},
            {"key": Path("a")},
        ],
    )
    def test_connections_that_make_no_sense(self, bad: dict[str, object]) -> None:
        with pytest.raises(UsageError, match=r"expected|go together"):
            Connection(**bad)  # type: ignore[arg-type]


def test_environment_names_several_servers(server: RunningServer, tmp_path: Path) -> None:
    env = {**os.environ, "GOMIN_URL": f"{server.grpc} grpc://127.0.0.1:{server.grpc_port}"}

    result = run("gomin-client", "info", env=env)

    assert result.returncode == 0, result.stderr
    assert "gomin_gan" in result.stdout
