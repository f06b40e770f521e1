"""Checkpoints of the Hub, from an endpoint on this machine; and hashes that pin them."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from gomin_client.cli.main import app as client
from gomin_client.contract.model import Provenance
from gomin_client.errors import UsageError
from gomin_export import pipeline
from gomin_export.checkpoints import sources
from gomin_export.checkpoints.sources import CheckpointFile, locate
from gomin_export.cli import app
from gomin_export.errors import CheckpointError
from gomin_export.parity.record import read_provenance
from tests.export.placing import use_model
from tests.support import GOLDEN, invoke, run

GAN = GOLDEN / "gan_v3.pt"
SHA256 = hashlib.sha256(GAN.read_bytes()).hexdigest()
COMMIT = "c0ffee" * 6 + "c0de"


class Hub(BaseHTTPRequestHandler):
    """One public repository, user/vocoder, with one file."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        found = self.path in (f"/user/vocoder/resolve/{name}/nets/gan.pt" for name in ("main", "v1", COMMIT))
        content = GAN.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        headers = {"Content-Length": str(len(content)), "X-Repo-Commit": COMMIT, "ETag": f'"{SHA256}"'}
        if not found and "/resolve/" in self.path:
            known = self.path.startswith("/user/vocoder/")
            headers["X-Error-Code"] = "EntryNotFound" if known else "RepoNotFound"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables with which huggingface_hub asks a server of our own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path_factory.mktemp("hub")),
        "HF_TOKEN": "",
        "NO_PROXY": "127.0.0.1",
    }
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub, which reads those variables when it is imported, ask that server in this process too."""
    monkeypatch.setenv("NO_PROXY", environment["NO_PROXY"])
    download = functools.partial(
        huggingface_hub.hf_hub_download, endpoint=environment["HF_ENDPOINT"], cache_dir=environment["HF_HOME"]
    )
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)


def test_the_hub_is_chosen_by_the_environment(environment: dict[str, str], tmp_path: Path) -> None:
    url = "hf://user/vocoder/nets/gan.pt"

    result = run(
        *("gomin-export", "gan", "--ckpt", url, "--repository", tmp_path, "--dry-run"), env=os.environ | environment
    )

    assert result.returncode == 0, result.stderr
    assert f"{environment['HF_HOME']}/hub/" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("revision", ["", "@v1", f"@{COMMIT}"])
def test_a_checkpoint_of_the_hub_is_exported(tmp_path: Path, revision: str) -> None:
    url = f"hf://user/vocoder{revision}/nets/gan.pt"

    result = invoke(app, "gan", "--ckpt", url, "--sha256", SHA256, "--repository", tmp_path, "--dry-run")

    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[0] == f"looking up {url}"
    assert f"snapshots/{COMMIT}/nets/gan.pt" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("hf://user/vocoder/nets/other.pt", "its repository has no such file in this revision"),
        ("hf://user/other/nets/gan.pt", "there is no such repository, or it is private"),
    ],
)
def test_what_the_hub_does_not_have(tmp_path: Path, url: str, words: str) -> None:
    result = invoke(app, "gan", "--ckpt", url, "--repository", tmp_path / "m")

    assert result.returncode == 6
    assert f"gomin-export: {url}: {words}" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "m").exists()


def test_the_commit_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str, str | None]] = []
    snapshot = tmp_path / "snapshots" / COMMIT / "a" / "gan.pt"
    snapshot.parent.mkdir(parents=True)
    snapshot.write_bytes(GAN.read_bytes())

    def download(repository: str, file: str, revision: str | None = None) -> str:
        asked.append((repository, file, revision))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)

    source = locate("hf://user/vocoder@refs%2Fpr%2F3/a/gan.pt")

    assert asked == [("user/vocoder", "a/gan.pt", "refs/pr/3")]
    assert source == CheckpointFile(snapshot, f"hf://user/vocoder@{COMMIT}/a/gan.pt", SHA256)


def test_errors_of_the_network_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise OSError("connection reset\nby peer")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)

    with pytest.raises(CheckpointError, match=r"^hf://u/r/gan\.pt: cannot be downloaded: connection reset$"):
        locate("hf://u/r/gan.pt")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(UsageError, match=r"needs the package huggingface_hub: pip install 'gomin-triton\[hub\]'"):
        locate("hf://u/r/gan.pt")


@pytest.mark.parametrize("url", ["hf://gan.pt", "hf://user/gan.pt", "hf://user/repo@/gan.pt", "hf://", "hf://u/r/"])
def test_malformed_names_of_the_hub(url: str) -> None:
    with pytest.raises(UsageError, match=r"expected hf://USER/REPOSITORY/FILE"):
        locate(url)


def test_other_urls_are_not_files() -> None:
    with pytest.raises(UsageError, match=r"--ckpt https://.*: expected a file or hf://USER/REPOSITORY/FILE"):
        locate("https://example.org/gan.pt")


@pytest.mark.parametrize("form", ["{}", "sha256:{}", " {} "])
def test_a_hash_pins_a_file(form: str) -> None:
    assert locate(GAN, form.format(SHA256.upper())).sha256 == SHA256
    with pytest.raises(CheckpointError, match=rf"its SHA-256 is {SHA256}; expected {'0' * 64} \(--sha256\)"):
        locate(GAN, form.format("0" * 64))


@pytest.mark.parametrize("text", ["", "abc", "z" * 64, "0" * 63])
def test_malformed_hashes(text: str) -> None:
    with pytest.raises(UsageError, match="expected 64 hexadecimal digits"):
        locate(GAN, text)


def test_verify_pins_too(tmp_path: Path) -> None:
    result = invoke(app, "verify", "--ckpt", GAN, "--sha256", "0" * 64, "--repository", tmp_path)

    assert result.returncode == 6
    assert "(--sha256)" in result.stderr


@pytest.mark.slow
def test_the_source_is_recorded_with_the_model(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / 'my "best"\\gan.pt'
    odd.write_bytes(GAN.read_bytes())
    home = tmp_path / "models"
    use_model(monkeypatch, tiny_repository / "gomin_gan/1/model.onnx")

    pipeline.export("gan", odd, home)

    files = home / "gomin_gan" / "1"
    assert json.loads((files / "parity.json").read_text())["source"] == "my ?best??gan.pt"
    made = read_provenance(files)
    assert made is not None
    assert made.source == "my ?best??gan.pt"
    shown = invoke(client, "info", "--url", f"local:{home}")
    assert shown.returncode == 0, shown.stderr
    assert "    source: my ?best??gan.pt" in shown.stdout.splitlines()
    again = pipeline.export("gan", GAN, home)  # the same checkpoint by another name is the same export
    assert again.plan.exists
    assert made == read_provenance(files)


def test_a_version_without_a_source_stays_as_it_is() -> None:
    old = {"gomin.checkpoint_sha256.1": "aa", "gomin.precision.1": "fp32", "gomin.parity.1": "good"}

    assert Provenance.from_parameters(old)[1].to_parameters(1) == old


def test_names_are_recorded_without_what_a_config_cannot_hold() -> None:
    assert sources._recorded('a"b\\c\nd\udce4.pt') == "a?b?c?d?.pt"
    assert sources._recorded("größe 好.pt") == "größe 好.pt"
