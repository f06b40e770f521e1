"""Writes the page as a folder that needs no server of ours: models run in the browser, by onnxruntime-web."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gomin_client.contract import model as contract
from gomin_client.contract.model import ModelContract
from gomin_client.errors import ContractError, FileError, ServerError, UsageError
from gomin_client.files.atomic import atomic_folder
from gomin_client.sampling.jobs import DiffusionModel
from gomin_client.transports.connection import Connection
from gomin_client.transports.local import LocalTransport
from gomin_gateway import onnxruntime_web
from gomin_gateway.backend import Backend
from gomin_gateway.page import WEB

CATALOGUE = "models.json"
MOST_BYTES = 1_000_000_000  # of a network that browsers run; also in web/browser/sessions.js
_GENERATOR = "gomin-gateway --static"
_FORMAT = 1
_ENGINE = '// The engine of this page.\nexport { BrowserEngine as Engine } from "./engine-browser.js";\n'
_NOT_NEEDED = ("engine.js", "engine-gateway.js", "npy.js")
_MARK = '<meta charset="utf-8">'
# As page.py, and what WebAssembly needs.
_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'"
)
_HEADERS = f"""# For hosts that read this file from the root of a site (Netlify, Cloudflare Pages); others ignore it.
# The first two headers give the page threads.
/*
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Embedder-Policy: require-corp
  Content-Security-Policy: {_POLICY}; frame-ancestors 'none'
  Permissions-Policy: microphone=(self), camera=(), geolocation=()
  Referrer-Policy: no-referrer
  Cache-Control: no-cache
"""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        models: the names of the models.
        megabytes: the size of the folder.
        warnings: sentences about models that browsers do not run.
    """

    models: tuple[str, ...]
    megabytes: float
    warnings: tuple[str, ...]


def check_target(folder: Path) -> None:
    """Refuse a folder with other files than those that this program has written.

    Raises:
        UsageError: says which, and what to do.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; expected the name of a folder")
    if folder.is_dir() and any(folder.iterdir()) and not _is_ours(folder):
        raise UsageError(f"{folder}: is a folder with other files; choose a new one")


def write(folder: Path, repository: LocalTransport, package: Path | None = None, *, webgpu: bool = False) -> Written:
    """Write the folder; it is complete or not there. An earlier one of this program is replaced.

    Args:
        folder: see `check_target`.
        repository: a model repository, whose newest versions are taken.
        package: see `onnxruntime_web.read`.
        webgpu: whether to write what the page needs to compute on GPUs, too.

    Raises:
        UsageError, FileError: see `check_target` and `onnxruntime_web.read`; the folder cannot be written.
        ServerError, ContractError: the repository has no model that browsers can run, or is damaged.
    """
    check_target(folder)
    models = _Models(repository)
    runtimes = {"cpu": onnxruntime_web.CPU, **({"gpu": onnxruntime_web.GPU} if webgpu else {})}
    files = onnxruntime_web.read([name for pair in runtimes.values() for name in pair], package)
    with atomic_folder(folder) as part:
        _write_page(part)
        stage = _Stage(part)
        runtime: dict[str, Any] = {"version": onnxruntime_web.VERSION}
        for device, (module, binary) in runtimes.items():
            runtime[device] = {
                "module": stage.add(f"onnxruntime-web/{module}", files[module]),
                "binary": stage.add(f"onnxruntime-web/{binary}", files[binary]),
            }
        (part / "onnxruntime-web" / "LICENSE").write_text(onnxruntime_web.LICENSE, encoding="utf-8")
        catalogue = {
            "format": _FORMAT,
            "generator": f"{_GENERATOR} {version('gomin-triton')}",
            "runtime": runtime,
            "models": models.entries(stage),
        }
        text = json.dumps(catalogue, indent=1, ensure_ascii=False)
        (part / CATALOGUE).write_text(text, encoding="utf-8", newline="\n")
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
    return Written(tuple(models.names), size / 1e6, tuple(stage.warnings))


class _Models:
    """The models of a repository that make audio, each with the networks that it consists of."""

    def __init__(self, transport: LocalTransport) -> None:
        self._transport = transport
        described = Backend(self._transport, Connection()).models()
        self._models = [model for model in described if model["kind"] in contract.VOCODER_KINDS]
        if not self._models:
            raise ServerError(f"{self._transport.url}: has no model that makes audio; run gomin-export first")
        self._repository = transport.repository
        contracts = {
            name: ModelContract.from_parameters(name, self._transport.describe(name).parameters)
            for name in self._transport.models()
            if "gomin.kind" in self._transport.describe(name).parameters
        }
        self._front_ends = {name: found for name, found in contracts.items() if found.kind == contract.FRONT_END}
        self._contracts = contracts
        for name, found in contracts.items():
            made = found.provenance.get(self._newest(name))
            if made is not None and made.operators:
                raise UsageError(
                    f"{self._repository / name}: browsers cannot run it, since it needs the operators {made.operators} "
                    "of a native library: export the checkpoint with --target any or, a GAN, cpu"
                )

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return [model["name"] for model in self._models]

    def entries(self, stage: _Stage) -> list[dict[str, Any]]:
        """The models as the catalogue has them; copies their networks."""
        found = []
        for model in self._models:
            newest = max(known["version"] for known in model["versions"])
            front_end = self._front_end(model["name"])
            parts: dict[str, Any] = {}
            name = model["name"]
            if model["kind"] == contract.DIFFUSION:
                parameters = self._transport.describe(name).parameters
                tiling = DiffusionModel.from_config(parameters, max_batch_size=1).tiling
                name, parts["tile_frames"] = contract.DENOISER_MODEL, tiling.tile_frames
            parts["network"] = self._network(stage, name, newest)
            found.append(
                {
                    **model,
                    **parts,
                    "front_end": {**self._network(stage, front_end, self._newest(front_end)), "cpu_only": True},
                }
            )
        return found

    def _front_end(self, model: str) -> str:
        """The name of the front end that makes a model's mels."""
        for name, found in self._front_ends.items():
            if found.mel == self._contracts[model].mel:
                return name
        raise ContractError(
            f"{self._repository}: has no mel front end for {model}; gomin-export places one beside each model: "
            "export it again"
        )

    def _newest(self, model: str) -> int:
        return self._transport.describe(model).versions[-1]

    def _network(self, stage: _Stage, model: str, version: int) -> dict[str, Any]:
        path = self._repository / model / str(version) / "model.onnx"
        others = [file for file in path.parent.glob("*.onnx*") if file != path]
        if others:
            raise UsageError(
                f"{others[0]}: browsers cannot run {model}, whose weights are in a file of their own; models of more "
                "than 2 GB have one"
            )
        try:
            content = path.read_bytes()
        except OSError as error:
            raise FileError(f"{path}: cannot be read: {error.strerror}") from error
        return stage.add(f"models/{model}-{version}.onnx", content)


class _Stage:
    """Writes files into the folder, with their fingerprints in their names, so that caches may keep them for ever."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.warnings: list[str] = []

    def add(self, name: str, content: bytes) -> dict[str, Any]:
        """The file's entry in the catalogue."""
        digest = hashlib.sha256(content).hexdigest()
        stem, dot, suffix = name.rpartition(".")
        named = f"{stem}-{digest[:12]}{dot}{suffix}"
        path = self._folder / named
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        if len(content) > MOST_BYTES:
            self.warnings.append(
                f"{named} has {len(content) / 1e6:.0f} MB; browsers run models of up to {MOST_BYTES / 1e6:.0f} MB"
            )
        return {"file": named, "bytes": len(content), "sha256": digest}


def _write_page(folder: Path) -> None:
    shutil.copytree(WEB, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_NOT_NEEDED, ".*"))
    (folder / "engine.js").write_text(_ENGINE, encoding="utf-8")
    (folder / "_headers").write_text(_HEADERS, encoding="utf-8")
    page = folder / "index.html"
    text = page.read_text(encoding="utf-8")
    assert _MARK in text
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    page.write_text(text.replace(_MARK, f"{_MARK}\n{policy}", 1), encoding="utf-8", newline="\n")


def _is_ours(folder: Path) -> bool:
    try:
        found = json.loads((folder / CATALOGUE).read_text(encoding="utf-8"))
        return str(found["generator"]).startswith(_GENERATOR)
    except (OSError, ValueError, KeyError, TypeError):
        return False
