"""URLs of models."""

import pytest

from gomin_client.errors import UsageError
from gomin_client.transports.address import balanced_target, is_loopback
from gomin_client.transports.registry import connect, parse


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("grpc://host:9001", "grpc://host:9001"),
            ("grpc://host", "grpc://host:8001"),
            ("host:9001", "grpc://host:9001"),
            ("host", "grpc://host:8001"),
            ("[::1]", "grpc://[::1]:8001"),
            ("[::1]:9", "grpc://[::1]:9"),
            ("http://[fe80::1%25eth0.7]", "http://[fe80::1%eth0.7]:8000"),
            ("grpc://[fe80::1%br-lan]:9", "grpc://[fe80::1%br-lan]:9"),
            ("http://host:9000/", "http://host:9000"),
            ("http://host", "http://host:8000"),
            ("grpcs://host", "grpcs://host:8001"),
            ("https://host", "https://host:443"),
            ("dns:///host", "dns:///host:8001"),
            ("dns://8.8.8.8/host:9", "dns://8.8.8.8/host:9"),
            ("local:some/dir", "local:some/dir"),
            ("local:/abs", "local:/abs"),
        ],
    )
    def test_forms(self, url: str, expected: str) -> None:
        transport = connect(url)
        assert transport.url == expected
        transport.close()

    def test_several(self) -> None:
        transport = connect(["grpc://127.0.0.1:1", "127.0.0.1"])
        assert transport.url == "grpc://127.0.0.1:1,grpc://127.0.0.1:8001"
        transport.close()

    def test_the_target_of_several(self) -> None:
        addresses = [parse(url) for url in ("grpc://127.0.0.1:1", "grpc://localhost:2", "grpc://127.0.0.1:1")]
        assert balanced_target(addresses) == "ipv4:127.0.0.1:1,127.0.0.1:2"
        assert balanced_target([parse("[::1]:1"), parse("[::1]:2")]) == "ipv6:[::1]:1,[::1]:2"
        with pytest.raises(UsageError, match="no kind of IP address in common"):
            balanced_target([parse("127.0.0.1:1"), parse("[::1]:2")])
        with pytest.raises(OSError, match=r"nowhere|known|resol"):
            balanced_target([parse("nowhere.invalid:1"), parse("127.0.0.1:1")])

    @pytest.mark.parametrize("url", ["localhost:abc", "grpc://localhost:94537", "http://localhost:0", "http://[::1]:"])
    def test_a_port_that_is_none_is_a_usage_error(self, url: str) -> None:
        with pytest.raises(UsageError, match="is not a port"):
            connect(url)

    @pytest.mark.parametrize("url", ["", "grpc://", "http://", "local:", "dns:///", "ftp://host", "http://host/path"])
    def test_anything_else_is_a_usage_error(self, url: str) -> None:
        with pytest.raises(UsageError, match="expected grpc://HOST:PORT"):
            connect(url)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.9.8.7", "127.1", "::1", "[::1]",
     "0.0.0.0", "::", "::ffff:127.0.0.1"],
)  # fmt: skip
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["localhost.org", "10.0.0.1", "128.0.0.1", "2001:db8::1", "triton", "127.example.org", ""]
)
def test_other_machines(host: str) -> None:
    assert not is_loopback(host)
