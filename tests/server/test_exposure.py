"""What a server opens, and to whom."""

import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from gomin_client import Connection, Vocoder
from gomin_client.errors import AccessError
from gomin_server import cli, exposure
from tests.server import namespace
from tests.support import RunningServer, run, serving


class TestAddresses:
    @pytest.mark.parametrize(
        ("host", "loopback"),
        [
            ("127.0.0.1", "127.0.0.1"),
            ("localhost", "localhost"),
            ("127.0.0.2", "127.0.0.2"),
            ("0.0.0.0", "127.0.0.1"),
            ("192.0.2.1", "127.0.0.1"),
            ("::", "::1"),
            ("[::1]", "[::1]"),
            ("2001:db8::1", "::1"),
            ("no such host", "127.0.0.1"),
        ],
    )
    def test_http_and_metrics_listen_on_loopback(self, host: str, loopback: str) -> None:
        assert exposure.addresses({}, host) == {"--http-address": loopback, "--metrics-address": loopback}

    def test_what_is_opened_on_purpose(self) -> None:
        assert exposure.addresses({}, "0.0.0.0", expose_http=True, metrics_host="192.0.2.1") == {
            "--http-address": "0.0.0.0",
            "--metrics-address": "192.0.2.1",
        }

    def test_addresses_that_are_passed_to_tritonserver_have_precedence(self) -> None:
        given = {"--http-address": "192.0.2.1", "--metrics-address": "unix:/run/metrics"}

        assert exposure.addresses(given, "0.0.0.0", expose_http=True, metrics_host="::") == given


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"--http-address": "0.0.0.0"}, 1),
        ({"--http-address": "192.0.2.1"}, 1),
        ({"--http-address": "::"}, 1),
        ({"--http-address": "127.0.0.1"}, 0),
        ({"--http-address": "::1"}, 0),
        ({"--http-address": "unix:/run/http"}, 0),
        ({"--http-address": "no such host"}, 0),
        ({"--http-address": "0.0.0.0", "--allow-http": "false"}, 0),
    ],
)
def test_an_open_http_port_has_a_warning(options: Mapping[str, str], count: int) -> None:
    lines = exposure.warnings(options)

    assert len(lines) == count
    assert all("A single request of anyone who reaches it can end the server" in line for line in lines)


class TestRestrictions:
    def test_the_headers_that_open_http(self) -> None:
        given = ["--http-restricted-api=trace,logging:a=b", "--http-restricted-api", "inference:c=d=e", "--http-port=1"]

        assert exposure.secret_headers(given) == {"a": "b", "c": "d=e"}
        assert exposure.secret_headers(["--grpc-restricted-protocol=trace:a=b"]) == {}

    def test_endpoints_for_administration_are_closed_by_a_fresh_secret(self) -> None:
        first, second = exposure.restrictions([], "none"), exposure.restrictions([], "none")

        for option, line in zip(exposure.RESTRICTIONS, first, strict=True):
            groups, _, secret = line.rpartition("=")
            assert groups == f"{option}=shared-memory,trace,logging:gomin-admin"
            assert len(secret) == 32
        assert first != second

    def test_restrictions_that_are_passed_to_tritonserver_have_precedence(self) -> None:
        """tritonserver refuses a group that two options restrict."""
        given = ["--http-restricted-api=trace,logging:a=b", "--http-restricted-api", "inference:c=d"]
        given += ["--grpc-restricted-protocol=logging,shared-memory,trace:a=b"]

        (line,) = exposure.restrictions(given, "none")

        assert line.startswith("--http-restricted-api=shared-memory:gomin-admin=")

    def test_model_control_is_closed_where_requests_can_load_models(self) -> None:
        added = exposure.restrictions([], "explicit")

        assert all("shared-memory,trace,logging,model-repository:" in line for line in added)
        assert exposure.notes(added) == [exposure.MODEL_CONTROL_NOTE]
        assert exposure.notes(exposure.restrictions([], "poll")) == []


def test_http_cannot_be_both_exposed_and_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--model-repository", str(tmp_path), "--no-http", "--expose-triton-http"])

    assert end.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


HTTP_REQUESTS = [
    ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/x/register"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("POST", "/v2/trace/setting"),
    ("POST", "/v2/models/gomin_gan/trace/setting"),
    ("POST", "/v2/logging"),
]
GRPC_REQUESTS: dict[str, Callable[[Any], Any]] = {
    "shared memory": lambda client: client.register_system_shared_memory("x", "/x", 1),
    "CUDA shared memory": lambda client: client.get_cuda_shared_memory_status(),
    "trace": lambda client: client.update_trace_settings(settings={"trace_file": "x"}),
    "logging": lambda client: client.update_log_settings({"log_verbose_level": 1}),
}


def http_status(server: RunningServer, method: str, path: str) -> int:
    data = b"{}" if method == "POST" else None
    try:
        with urllib.request.urlopen(urllib.request.Request(server.http + path, data, method=method)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.server
class TestClosedByDefault:
    """The other tests show that clients and `info` work with such a server."""

    @pytest.mark.parametrize(("method", "path"), HTTP_REQUESTS)
    def test_http(self, server: RunningServer, method: str, path: str) -> None:
        assert http_status(server, method, path) == 403

    @pytest.mark.parametrize("name", GRPC_REQUESTS)
    def test_grpc(self, server: RunningServer, name: str) -> None:
        with (
            tritonclient.grpc.InferenceServerClient(server.grpc.removeprefix("grpc://")) as client,
            pytest.raises(InferenceServerException, match="This protocol is restricted"),
        ):
            GRPC_REQUESTS[name](client)

    def test_models_cannot_be_unloaded(self, server: RunningServer) -> None:
        assert http_status(server, "POST", "/v2/repository/models/gomin_gan/unload") == 503
        assert http_status(server, "POST", "/v2/repository/index") == 200

    @pytest.mark.parametrize("path", ["/v2", "/v2/models/gomin_gan", "/v2/models/gomin_gan/stats"])
    def test_what_clients_need_is_open(self, server: RunningServer, path: str) -> None:
        assert http_status(server, "GET", path) == 200


@pytest.mark.server
def test_a_server_without_http_whose_administration_is_open(gan_repository: Path, tmp_path: Path) -> None:
    with serving(gan_repository, tmp_path / "log", "--no-http", "--open-admin") as server:
        with pytest.raises(urllib.error.URLError):
            http_status(server, "GET", "/v2")
        with tritonclient.grpc.InferenceServerClient(server.grpc.removeprefix("grpc://")) as client:
            assert client.get_log_settings().settings
        assert Vocoder(server.grpc).sample_rate == 24000


@pytest.mark.server
def test_explicit_model_control_with_a_secret(gan_repository: Path, tmp_path: Path) -> None:
    options = ["--model-control-mode=explicit", "--load-model=gomin_gan"]
    options += ["--grpc-restricted-protocol=model-repository:token=s3cret"]

    with serving(gan_repository, tmp_path / "log", *options) as server:
        # HTTP has no secret that anyone knows
        assert http_status(server, "POST", "/v2/repository/models/gomin_gan/unload") == 403
        assert f"gomin-server: {exposure.MODEL_CONTROL_NOTE}" in server.log_text
        with pytest.raises(AccessError, match=r"--grpc-restricted-protocol=model-repository:KEY=SECRET \(HTTP: "):
            Vocoder(server.http)
        with pytest.raises(AccessError, match="send what it asks for"):
            Vocoder(server.grpc)
        with Vocoder(server.grpc, connection=Connection(headers={"triton-grpc-protocol-token": "s3cret"})) as vocoder:
            assert vocoder.version == 1


@pytest.mark.server
@pytest.mark.slow
def test_from_outside_only_what_was_opened_answers(gan_repository: Path, tmp_path: Path) -> None:
    """All TCP ports of an address that is not a loopback address, in a network namespace of its own."""
    outside = "192.0.2.1"

    def scan(options: list[str]) -> tuple[set[int], RunningServer]:
        with serving(gan_repository, tmp_path / "log", "--host", "0.0.0.0", *options) as server:
            info = run("gomin-client", "info", "--url", f"grpc://{outside}:{server.grpc_port}")
            assert info.returncode == 0, info.stderr
            return namespace.open_ports(outside), server

    with namespace.isolated(outside) as inside:
        found, server = inside(scan, [])
        assert found == {server.grpc_port}

        found, server = inside(scan, ["--expose-triton-http", f"--metrics-host={outside}"])
        assert found == {server.http_port, server.grpc_port, server.metrics_port}
