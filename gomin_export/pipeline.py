"""From a checkpoint to models in a repository: load, plan, export, prove parity, place."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from gomin_client.contract import model as contract
from gomin_client.contract.model import FP16, FP32, Provenance
from gomin_client.contract.repository import CONFIG
from gomin_client.errors import UsageError
from gomin_client.interrupts import check_interrupted
from gomin_client.native.library import LIBRARY_FILE, OperatorLibrary
from gomin_client.transports.local import LocalTransport
from gomin_export.checkpoints import load_network
from gomin_export.checkpoints.sources import CheckpointFile
from gomin_export.errors import ContractConflictError, VersionTakenError
from gomin_export.networks import registry
from gomin_export.networks.registry import Architecture
from gomin_export.networks.served import ServedModel
from gomin_export.parity import cases, gate, record, windows
from gomin_export.parity.gate import Report
from gomin_export.plan import ExportOptions, ExportPlan, PlannedModel, make_plan
from gomin_export.repository import place
from gomin_export.repository.staging import copy_file, copy_tree, staging, transferred, turn, write_file

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """The models that an export placed, or found in the repository.

    Attributes:
        plan: the plan that was carried out.
        reports: the parity gate's report for each model; from the earlier export if nothing was new.
    """

    plan: ExportPlan
    reports: list[Report]


class Export:
    """The export of one checkpoint into one repository."""

    def __init__(
        self,
        architecture: Architecture,
        checkpoint: Path | CheckpointFile,
        model_repository: Path,
        options: ExportOptions,
        say: Say = lambda _: None,
    ) -> None:
        """Load the checkpoint and plan the export; nothing is written.

        Args:
            architecture: the network's record.
            checkpoint: the checkpoint file, or what `checkpoints.sources.locate` made of an option.
            model_repository: the repository for the models; made if missing.
            options: of the export.
            say: called with a line of text before each stage.

        Raises:
            CheckpointError: the file is not a usable checkpoint of this network.
            RepositoryError: the repository cannot take the models.
            UsageError: options contradict each other.
        """
        if options.graph.target not in architecture.targets:
            raise UsageError(
                f"target {options.graph.target}: network {architecture.name} is exported for "
                f"{' or '.join(architecture.targets)} only"
            )
        self.placed = False  # whether the models are in the repository
        self._say = say
        self._architecture = architecture
        self._options = options
        self._source = checkpoint if isinstance(checkpoint, CheckpointFile) else CheckpointFile.of(checkpoint)
        path = self._source.path
        say(f"loading {path}")
        self._network = load_network(architecture.network_class, path, options.overrides, options.key, say)
        self.plan = self._make_plan(model_repository)

    def _make_plan(self, model_repository: Path) -> ExportPlan:
        return make_plan(self._architecture, self._network, self._source.sha256, model_repository, self._options)

    def run(self) -> Exported:
        """Export, prove parity and place the models, unless the repository has them already.

        Exports that remove versions of a model (`ExportOptions.keep`) wait for one another.

        Raises:
            ParityError: an exported model differs from the network; nothing was placed.
            RepositoryError: a file cannot be written; nothing was placed.
        """
        homes = [] if self._options.keep is None else [self.plan.repository / model.name for model in self.plan.models]
        with turn(homes, self._say) as waited:
            if waited:
                self.plan = self._make_plan(self.plan.repository)  # the other export changed the repository
            return self._run()

    def _run(self) -> Exported:
        """Carry out the plan; with another one if another export has changed the repository since it was made."""
        while True:
            try:
                return self._carry_out(self.plan)
            except ContractConflictError:
                self.plan = self._make_plan(self.plan.repository)  # refuses what another name does not solve
                other = next(model.name for model in self.plan.models if model.served.is_shared)
                self._say("another export has placed a mel front end with other settings since this one began:")
                self._say(f"exporting again, with the front end {other}")
            except VersionTakenError:  # with another plan already, of which the staged models are no part
                self._say("another export has placed these models since this one began: planned again")

    def _carry_out(self, plan: ExportPlan) -> Exported:
        if plan.exists:
            self._say(f"version {plan.version} was made by the same recipe: nothing to export{plan.newer}")
            self._say("the recorded results of its export:")
            reports = [self._recorded(model) for model in plan.models]
            if not plan.changes:
                return Exported(plan, reports)
        with staging(plan.repository) as stage:
            if plan.exists:
                for model in plan.models:
                    (stage / model.name).mkdir()
            else:
                reports = self._build(stage)
            while not self._place(stage, reports):
                pass
        return Exported(self.plan, reports)

    def _place(self, stage: Path, reports: Sequence[Report]) -> bool:
        """Place the staged models.

        Returns:
            False if another export has taken the version number: the plan and the staged models have the next one.

        Raises:
            VersionTakenError: it has, and the new plan is not one of the same models.
        """
        plan = self.plan
        provenance = {
            model.name: replace(self._provenance(model.served), parity=report.summary)
            for model, report in zip(plan.models, reports, strict=True)
            if not model.exists
        }
        try:
            with transferred(plan.repository, [stage / model.name for model in plan.models]) as homes:
                staged = plan.staged(homes, provenance)
                with place.signals_deferred():
                    check_interrupted()  # a library may have dropped the exception
                    place.place_models(plan.repository, staged, plan.dropped)
                    self.placed = True
        except VersionTakenError:
            self.plan = self._make_plan(plan.repository)
            if not plan.is_renumbered_by(self.plan):
                raise
            self._say(f"another export has placed version {plan.version} since this one began: placing another version")
            for old, new in zip(plan.models, self.plan.models, strict=True):
                if not new.exists:
                    (stage / old.name / str(old.version)).rename(stage / old.name / str(new.version))
            return False
        return True

    def _build(self, stage: Path) -> list[Report]:
        """Write complete models into the staging directory and test them there, as a client would call them."""
        reports = []
        new = {model.name: self._provenance(model.served) for model in self.plan.models if not model.exists}
        texts = self.plan.config_texts(new)
        with LocalTransport(stage) as transport:
            for model in self.plan.models:
                home = stage / model.name
                home.mkdir()
                if model.exists:
                    reports.append(self._recorded(model))
                    if model.served.is_shared:  # an ensemble that is tested here calls it
                        placed = self.plan.repository / model.name / str(model.version)
                        copy_tree(placed, home / placed.name)
                        write_file(home / CONFIG, texts[model.name])
                    continue
                self._check_contracts()
                files = home / str(model.version)
                files.mkdir()
                write_file(home / CONFIG, texts[model.name])
                self._write(model, files)
                reference = "librosa" if model.served.is_shared else "PyTorch"
                self._check_contracts()
                self._say(f"comparing {model.name} with {reference}")
                report = self._test(transport, model, files)
                report.require("Nothing was placed in the repository")
                record.write_report(files, report)
                reports.append(report)
        return reports

    def _check_contracts(self) -> None:
        """Refuse, before work that takes time, what `place_models` would refuse after it.

        Raises:
            ContractConflictError: another export has placed a model with other settings since this one was planned.
        """
        for model in self.plan.models:
            place.check_contract(self.plan.repository, model.name, model.contract, overwrite=model.config is not None)

    def _write(self, model: PlannedModel, files: Path) -> None:
        """Write the files of a version directory that Triton serves."""
        if model.served.has_weights:
            parameters = sum(parameter.numel() for parameter in self._network.parameters())
            self._say(f"exporting {model.name} ({parameters / 1e6:.2f} million parameters) to ONNX")
        graph = self._options.graph
        facts = {
            **model.contract.to_parameters(),
            "gomin.checkpoint_sha256": self._source.sha256,
            "gomin.precision": graph.precision,
            "gomin.exporter": f"gomin-triton {metadata.version('gomin-triton')}, torch {torch.__version__}",
        }
        library = self._library(model.served)
        if library is not None:
            facts["gomin.operators"] = library.operators
            # for NVIDIA's native backend; clients and gomin-server load the library that is installed with them
            copy_file(library.path, files / LIBRARY_FILE)
        model.served.write(files, self._network, graph, facts)

    def _test(self, transport: LocalTransport, model: PlannedModel, files: Path) -> Report:
        """Compare a model's answers with the network's outputs, and say each outcome as soon as it is known.

        Some of the cases are recorded beside the model.
        """
        served = model.served
        gate_cases = served.gate_cases(self._network, model.parameters)
        window_cases = served.window_cases(self._network)
        providers = served.inspect(files, model.contract, gate_cases[0].inputs, self._library(served))

        def infer(inputs: gate.Inputs) -> Any:
            answer = transport.infer(model.name, model.version, inputs, parameters=model.parameters)
            return answer[contract.OUTPUTS[served.kind]]

        origin = self._origin(served)
        tolerance = self._tolerance(served)
        table = gate.Table(tolerance, [case.name for case in (*gate_cases, *window_cases)])

        def show(outcome: gate.CaseResult) -> None:
            self._say(table.row(outcome))

        self._say_all(table.head(model.name, Report.reference_of(origin)))
        outcomes = gate.compare(infer, gate_cases, report=show)
        in_windows = windows.in_windows(infer, model.contract.mel.hop_length, model.contract.halo_frames)
        outcomes += gate.compare(in_windows, window_cases, report=show)
        record.write_vectors(files, cases.to_record(gate_cases))
        facts: dict[str, Any] = {
            **origin,
            "contract": model.contract.to_parameters(),
            "files": record.file_digests(files),
            "recipe": model.recipe,
            "parameters": model.parameters,  # of the requests
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
        }
        if providers:
            facts["execution_providers"] = providers  # execution provider → number of operators that it ran
            if facts["precision"] == FP16 and set(providers) == {"CPUExecutionProvider"}:
                facts["note"] = "float16 on the CPU is emulated by casts around float32 operators; a GPU rounds more"
        report = Report(model.name, outcomes, tolerance, facts)
        self._say_all(report.conclusion())
        return report

    def _say_all(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._say(line)

    def _origin(self, served: ServedModel) -> dict[str, str]:
        """What a model was made of: the checkpoint, or no checkpoint for the front end, which is always in float32."""
        if served.is_shared:
            return {"checkpoint_sha256": "", "source": "", "precision": FP32, "reference": "librosa"}
        library = self._library(served)
        needed = {} if library is None else {"operators": library.operators, "operators_sha256": library.sha256}
        return {
            "checkpoint_sha256": self._source.sha256,
            "source": self._source.name,
            "precision": self._options.graph.precision,
            **needed,
        }

    def _provenance(self, served: ServedModel) -> Provenance:
        """The origin of a model's new version, without its parity."""
        known = {item.name for item in fields(Provenance)}
        return Provenance(**{name: value for name, value in self._origin(served).items() if name in known})

    def _library(self, served: ServedModel) -> OperatorLibrary | None:
        """The library that a model's graph needs; None if it needs none."""
        return self._options.library if served.has_weights else None

    def _tolerance(self, served: ServedModel) -> gate.Tolerance:
        """The tolerance of the export; the front end has its own, for other exports use the same one."""
        return gate.Tolerance(gate.ATOL, None) if served.is_shared else self._options.tolerance

    def _recorded(self, model: PlannedModel) -> Report:
        """The report of an earlier export, judged by the tolerance of this one."""
        files = self.plan.repository / model.name / str(model.version)
        report = replace(record.read_report(files), tolerance=self._tolerance(model.served))
        self._say_all(report.lines())
        report.require(f"These are the results of its export; {files} stays in place")
        return report


def export(
    kind: str, checkpoint: Path, model_repository: Path, options: ExportOptions | None = None, say: Say = lambda _: None
) -> Exported:
    """Export a checkpoint of an architecture, "gan" or "diffusion"; see `Export`.

    Raises:
        ValueError: there is no such architecture.
    """
    return Export(registry.get(kind), checkpoint, model_repository, options or ExportOptions(), say).run()
