"""From a checkpoint to models in a repository: load, export, prove parity, place."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from gomin_client.contract import model as contract
from gomin_client.contract.model import FP16, ModelContract, Provenance
from gomin_client.contract.repository import CONFIG, versions
from gomin_client.errors import UsageError
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.transports.base import Parameters
from gomin_client.transports.local import LocalTransport
from gomin_export.checkpoints import load_network
from gomin_export.choices import CPU, TARGETS
from gomin_export.networks import DiffusionWrapper, GomiGAN
from gomin_export.onnx import export as onnx_export
from gomin_export.onnx.export import MODEL_FILE, Graph
from gomin_export.parity import cases as gate_cases
from gomin_export.parity import gate, record, windows
from gomin_export.parity.gate import Report, Tolerance
from gomin_export.parity.signature import check_signature
from gomin_export.repository import fingerprint, place
from gomin_export.repository.config import Deployment, config_text, default_chain, template
from gomin_export.repository.fingerprint import sampling_modules
from gomin_export.repository.place import StagedModel

# Triton's Python stub cannot be told not to write bytecode, and a server in poll mode takes that for a change of the
# model and loads it again; where a file has the directory's name, Python does without.
NO_BYTECODE = "A file in place of the directory, so that a server in poll mode sees no bytecode appear.\n"

Say = Callable[[str], None]
Network = GomiGAN | DiffusionWrapper

NETWORKS: dict[str, type[GomiGAN] | type[DiffusionWrapper]] = {"gan": GomiGAN, "diffusion": DiffusionWrapper}
# kind of checkpoint -> the models made of it, in the order in which they are placed: a model after those it calls
MODELS = {
    "gan": {contract.GAN_MODEL: contract.GAN},
    "diffusion": {contract.DENOISER_MODEL: contract.DENOISER, contract.DIFFUSION_MODEL: contract.DIFFUSION},
}


@dataclass(frozen=True)
class Options:
    """How to export.

    Attributes:
        overrides: config values of the network that win over what the tensors show.
        key: which entry of a wrapped checkpoint to take.
        graph: precision and form of the ONNX graph.
        atol: allowed max abs error, if not the precision's own.
        min_snr: required SNR in dB, if not the precision's own.
        deployment: settings of config.pbtxt.
        overwrite_config: write an existing config.pbtxt anew.
        version: version number; the next free one by default.
        keep: how many versions to keep; all by default.

    Raises:
        UsageError: a graph for CPUs is asked for with what is not for CPUs, or has no such form.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    graph: Graph = field(default_factory=Graph)
    atol: float | None = None
    min_snr: float | None = None
    deployment: Deployment = field(default_factory=Deployment)
    overwrite_config: bool = False
    version: int | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        if self.graph.target not in TARGETS:
            raise UsageError(f"--target {self.graph.target}: expected {' or '.join(TARGETS)}")
        if self.graph.target != CPU:
            return
        for refused, why in (
            (self.graph.precision == FP16, "--precision fp16: CPUs compute in float32"),
            (not self.graph.lowering, "--no-lowering: minimal filtering is a lowering"),
            (self.deployment.for_gpus, f"{self.deployment.for_gpus}: GPUs are faster with --target any"),
        ):
            if refused:
                raise UsageError(f"--target {CPU} cannot be had with {why}")

    @property
    def tolerance(self) -> Tolerance:
        """What the gate allows."""
        return Tolerance.of(self.graph.precision, self.atol, self.min_snr)


@dataclass(frozen=True)
class Plan:
    """What an export would do.

    Attributes:
        repository: the model repository.
        version: of the models in it.
        exists: whether that version is there already, by the same recipe.
        contracts: model → what it tells clients.
        configs: model → text of a new config.pbtxt; None keeps the one that is there.
        dropped: model → versions to be removed.
    """

    repository: Path
    version: int
    exists: bool
    contracts: Mapping[str, ModelContract]
    configs: Mapping[str, str | None]
    dropped: Mapping[str, list[int]]

    def staged(self, stage: Path, provenance: Provenance | None) -> list[StagedModel]:
        """The models as they lie in a staging directory."""
        return [
            StagedModel(model, described, stage / model, self.configs[model], provenance)
            for model, described in self.contracts.items()
        ]

    def config_texts(self) -> dict[str, str]:
        """Model → text of its config.pbtxt, but for the provenance of a new version."""
        return {
            model.name: place.final_config(self.repository, model, self.version, self.dropped[model.name])
            for model in self.staged(self.repository, None)
        }

    @property
    def paths(self) -> list[Path]:
        """The version directories."""
        return [self.repository / model / str(self.version) for model in self.contracts]

    @property
    def newer(self) -> str:
        """What to do about newer versions, which servers and clients prefer; empty if there are none."""
        newest = max(number for model in self.contracts for number in [0, *versions(self.repository / model)])
        if newest <= self.version:
            return ""
        return f"; but version {newest} is newer: --version {newest + 1} makes it the newest again"

    @property
    def changes(self) -> bool:
        """Whether anything is to be written or removed."""
        return (
            not self.exists
            or any(self.dropped.values())
            or any(
                not (path := self.repository / model / CONFIG).exists()
                or path.read_text(encoding="utf-8").rstrip() != text.rstrip()
                for model, text in self.config_texts().items()
            )
        )


@dataclass(frozen=True)
class Exported:
    """What an export placed, or found in place.

    Attributes:
        plan: what was to be done.
        reports: what the parity gate found, model by model; those of the earlier export where nothing was new.
    """

    plan: Plan
    reports: list[Report]


class Export:
    """One checkpoint on its way into one repository."""

    def __init__(
        self, kind: str, checkpoint: Path, model_repository: Path, options: Options, say: Say = lambda _: None
    ) -> None:
        """Load the checkpoint and plan the export; nothing is written.

        Args:
            kind: "gan" or "diffusion".
            checkpoint: the file.
            model_repository: where the models go; made if missing.
            options: how.
            say: called with a line before each stage.

        Raises:
            CheckpointError: the file is not a usable checkpoint of this kind.
            RepositoryError: the repository cannot take the models.
            UsageError: options that contradict each other.
        """
        self.placed = False  # whether the models are in the repository
        self._chain: SamplerSettings | None = None  # that requests to a diffusion model get by default
        self._say = say
        self._options = options
        say(f"loading {checkpoint}")
        self._network: Network = load_network(NETWORKS[kind], checkpoint, options.overrides, options.key)
        self._sha256 = record.sha256(checkpoint)
        self.plan = self._make_plan(kind, model_repository)

    def run(self) -> Exported:
        """Export, prove parity, place; or find that all is there.

        Raises:
            ParityError: an exported model differs from the network; nothing was placed.
            RepositoryError: a file cannot be written; nothing was placed.
        """
        plan = self.plan
        if plan.exists:
            self._say(f"version {plan.version} was made by the same recipe: nothing to export{plan.newer}")
            reports = [self._recorded(path) for path in plan.paths]
            if not plan.changes:
                return Exported(plan, reports)
        with place.staging(plan.repository) as stage:
            if plan.exists:
                for model in plan.contracts:
                    (stage / model).mkdir()
                staged = plan.staged(stage, None)
            else:
                reports = self._build(stage)
                # one line of config.pbtxt for each model
                staged = [
                    replace(model, provenance=Provenance(self._sha256, self._options.graph.precision, report.summary))
                    for model, report in zip(plan.staged(stage, None), reports, strict=True)
                ]
            with place.signals_deferred():
                place.place(plan.repository, plan.version, staged, plan.dropped)
                self.placed = True
        return Exported(plan, reports)

    def _make_plan(self, kind: str, home: Path) -> Plan:
        options = self._options
        contracts = describe(kind, self._network)
        place.require_writable(home.resolve())
        deployment, precision = options.deployment, options.graph.precision
        if kind == "gan" and (deployment.sampling or deployment.tile_frames):
            raise UsageError("a GAN has no sampling chain: sampler settings have no effect on it")
        configs: dict[str, str | None] = {}
        for model, described in contracts.items():
            place.check_contract(home, model, described, options.overwrite_config)
            text = config_text(model, described, deployment, precision)
            configs[model] = place.choose_config(home, model, text, deployment, precision, options.overwrite_config)
            if described.kind == contract.DIFFUSION:
                text = configs[model] or (home / model / CONFIG).read_text(encoding="utf-8")
                self._chain = default_chain(text, described)
        self._recipe = fingerprint.make_recipe(
            self._sha256,
            options.key,
            vars(self._network.config),
            options.graph,
            self._chain.to_parameters() if self._chain else None,
        )
        found = fingerprint.find_export(home, list(contracts), self._recipe, options.version)
        if found is not None and options.version is None and options.keep is not None:
            newer = max(sum(number > found for number in versions(home / model)) for model in contracts)
            found = None if newer >= options.keep else found  # it would be dropped: this is a way back to an old model
        version = place.choose_version(home, list(contracts), options.version) if found is None else found
        dropped = {model: place.dropped_versions(home, model, version, options.keep) for model in contracts}
        return Plan(home, version, found is not None, contracts, configs, dropped)

    def _build(self, stage: Path) -> list[Report]:
        """Write complete models into the staging directory, and put them to the test there, as a client would."""
        reports = []
        texts = self.plan.config_texts()
        with LocalTransport(stage) as transport:
            for model, described in self.plan.contracts.items():
                files = stage / model / str(self.plan.version)
                files.mkdir(parents=True)
                (stage / model / CONFIG).write_text(texts[model], encoding="utf-8")
                self._write(model, described, files)
                self._say(f"comparing {model} with PyTorch")
                report = self._test(transport, model, described, files)
                report.require("Nothing was placed in the repository")
                record.write_report(files, report)
                reports.append(report)
        return reports

    def _write(self, model: str, described: ModelContract, files: Path) -> None:
        """Write what a version directory serves."""
        if described.kind == contract.DIFFUSION:
            (files / "model.py").write_text(template(model, "model.py"), encoding="utf-8")
            (files / "sampling").mkdir()
            for module in sampling_modules():
                (files / "sampling" / module.name).write_bytes(module.read_bytes())
            for package in (files, files / "sampling"):
                (package / "__pycache__").write_text(NO_BYTECODE, encoding="utf-8")
            return
        parameters = sum(parameter.numel() for parameter in self._network.parameters())
        self._say(f"exporting {model} ({parameters / 1e6:.2f} million parameters) to ONNX")
        graph = self._options.graph
        facts = {
            **described.to_parameters(),
            "gomin.checkpoint_sha256": self._sha256,
            "gomin.precision": graph.precision,
            "gomin.exporter": f"gomin-triton {metadata.version('gomin-triton')}, torch {torch.__version__}",
        }
        if isinstance(self._network, GomiGAN):
            onnx_export.export_gan(self._network, files / MODEL_FILE, facts, graph)
        else:
            onnx_export.export_denoiser(self._network, files / MODEL_FILE, facts, graph)

    def _test(self, transport: LocalTransport, model: str, described: ModelContract, files: Path) -> Report:
        parameters: Parameters = {}
        if described.kind == contract.DIFFUSION and self._chain and isinstance(self._network, DiffusionWrapper):
            parameters = self._chain.to_parameters()
            expectations = gate_cases.expect_chain(self._network, self._chain)
        else:
            expectations = gate_cases.EXPECTATIONS[described.kind](self._network)
        record.write_vectors(files, gate_cases.to_record(expectations))
        facts: dict[str, Any] = {
            "checkpoint_sha256": self._sha256,
            "precision": self._options.graph.precision,
            "contract": described.to_parameters(),
            "files": record.file_digests(files),
            "recipe": self._recipe,
            "parameters": parameters,  # of the requests
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
        }
        if described.kind != contract.DIFFUSION:
            # execution provider -> operators that it ran; the chain runs those of the denoiser
            facts["execution_providers"] = check_signature(files / MODEL_FILE, described, expectations[0].inputs)
            if self._options.graph.precision == FP16 and set(facts["execution_providers"]) == {"CPUExecutionProvider"}:
                facts["note"] = "float16 on the CPU is emulated by casts around float32 operators; a GPU rounds more"

        def infer(inputs: gate.Inputs) -> Any:
            answer = transport.infer(model, self.plan.version, inputs, parameters=parameters)
            return answer[contract.OUTPUTS[described.kind]]

        cases = gate.compare(infer, expectations)
        stepwise = windows.in_windows(infer, described.mel.hop_length, described.halo_frames)
        cases += gate.compare(stepwise, gate_cases.expect_windows(described.kind, self._network))
        return Report(model, cases, self._options.tolerance, facts)

    def _recorded(self, files: Path) -> Report:
        """The report of an earlier export, judged by the tolerance that is asked for now."""
        report = replace(record.read_report(files), tolerance=self._options.tolerance)
        report.require(f"This is what its export found; {files} stays in place")
        return report


def describe(kind: str, network: Network) -> dict[str, ModelContract]:
    """Model → what it tells clients, for the models that are made of one kind of checkpoint."""
    steps = network.model.num_diffusion_steps if isinstance(network, DiffusionWrapper) else None
    return {
        model: ModelContract(model_kind, network.mel_config, network.halo_frames, steps)
        for model, model_kind in MODELS[kind].items()
    }


def export(
    kind: str, checkpoint: Path, model_repository: Path, options: Options | None = None, say: Say = lambda _: None
) -> Exported:
    """Export a checkpoint; see `Export`."""
    return Export(kind, checkpoint, model_repository, options or Options(), say).run()
