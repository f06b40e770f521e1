"""The parity gate replayed against what is deployed: a repository on disk, or a live server.

The reference is a checkpoint, computed by PyTorch, or the vectors that an export recorded beside its models, which need
no PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gomin_client.contract import model as contract
from gomin_client.contract import repository as model_repository
from gomin_client.contract.model import ModelContract, Provenance
from gomin_client.errors import ContractError, ModelNotReadyError, ServerError, UnknownModelError
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.transports.base import ModelInfo, Parameters, Transport
from gomin_export.errors import RepositoryError
from gomin_export.parity import gate, record
from gomin_export.parity.gate import Case, Expectation, Report, Tolerance


@dataclass(frozen=True)
class Truth:
    """What a deployed model must be.

    Attributes:
        contract: what it tells clients.
        checkpoint_sha256: of its checkpoint.
        precision: what it computes in.
        version: its version; None where the newest deployed one is meant.
        newest: whether no newer version may be deployed.
        files: file name → SHA-256 of what its version directory serves; None where that is not known.
        expectations: what it must answer.
        tolerance: how far off it may be.
        parameters: of the requests.
    """

    contract: ModelContract
    checkpoint_sha256: str
    precision: str
    version: int | None
    newest: bool
    files: Mapping[str, str] | None
    expectations: Sequence[Expectation]
    tolerance: Tolerance
    parameters: Parameters = field(default_factory=dict)


class Reference(Protocol):
    """Where the truth comes from."""

    def models(self) -> list[str]:
        """The models that it knows."""
        ...

    def truth(self, model: str) -> Truth:
        """What a model must be."""
        ...


class RecordedReference:
    """The vectors and reports that exports left in a model repository."""

    def __init__(
        self,
        repository: Path,
        version: int | None = None,
        precision: str | None = None,
        atol: float | None = None,
        min_snr: float | None = None,
    ) -> None:
        """Arguments: see `verify`; the tolerance is that of the export where none is given."""
        self._repository = repository
        self._version = version
        self._precision = precision
        self._atol = atol
        self._min_snr = min_snr

    def models(self) -> list[str]:
        """Every model of the repository that an export recorded, whether it can be served or not.

        Raises:
            RepositoryError: there is none.
        """
        names = sorted({path.parent.parent.name for path in self._repository.glob(f"*/[1-9]*/{record.REPORT_FILE}")})
        if not names:
            raise RepositoryError(f"{self._repository}: has no models that gomin-export wrote")
        return names

    def truth(self, model: str) -> Truth:
        """What the newest version in the repository was when it was exported, or the version asked for.

        Raises:
            RepositoryError: the version is not there, or was exported without records.
        """
        there = model_repository.versions(self._repository / model)
        version = self._version or max(there, default=0)
        if version not in there:
            known = ", ".join(map(str, there)) or "no versions at all"
            raise RepositoryError(f"{self._repository}: {model} has no version {self._version}; it has {known}")
        files = self._repository / model / str(version)
        report = record.read_report(files)
        asked = Tolerance(
            report.tolerance.atol if self._atol is None else self._atol,
            report.tolerance.min_snr if self._min_snr is None else self._min_snr,
            report.tolerance.own_errors if self._atol is None else 0,
        )
        return Truth(
            ModelContract.from_parameters(model, report.facts["contract"]),
            report.facts["checkpoint_sha256"],
            self._precision or report.facts["precision"],
            version,
            self._version is None,
            report.facts["files"],
            record.read_vectors(files),
            asked,
            report.facts.get("parameters", {}),
        )


class CheckpointReference:
    """The network in a checkpoint, run by PyTorch."""

    def __init__(
        self,
        checkpoint: Path,
        overrides: Mapping[str, Any] | None = None,
        key: str | None = None,
        version: int | None = None,
        precision: str | None = None,
        atol: float | None = None,
        min_snr: float | None = None,
    ) -> None:
        """Load the checkpoint.

        Raises:
            CheckpointError: it is not usable.
        """
        from gomin_export import pipeline
        from gomin_export.checkpoints import detect_kind, load_network

        kind = detect_kind(checkpoint, key)
        self._network = load_network(pipeline.NETWORKS[kind], checkpoint, overrides, key)
        self._contracts = pipeline.describe(kind, self._network)
        self._sha256 = record.sha256(checkpoint)
        self._version = version
        self._precision = precision or contract.FP32
        self._tolerance = Tolerance.of(self._precision, atol, min_snr)

    def models(self) -> list[str]:
        """The models that an export makes of this checkpoint."""
        return list(self._contracts)

    def truth(self, model: str) -> Truth:
        """What a model of this checkpoint must be."""
        from gomin_export.parity.cases import EXPECTATIONS

        described = self._contracts[model]
        expectations = EXPECTATIONS[described.kind](self._network)
        parameters: Parameters = {}
        if described.kind == contract.DIFFUSION and described.num_diffusion_steps is not None:
            parameters = SamplerSettings().resolved(described.num_diffusion_steps).to_parameters()
        return Truth(
            described,
            self._sha256,
            self._precision,
            self._version,
            False,
            None,
            expectations,
            self._tolerance,
            parameters,
        )


def verify(target: Transport, model: str, truth: Truth, repository: Path | None = None) -> Report:
    """Hold one deployed model to the truth.

    Args:
        target: where it is deployed.
        model: its name.
        truth: what it must be.
        repository: the target's directory, if it is one: its files are checked too.

    Returns:
        A report; what is wrong but for values are cases that failed.

    Raises:
        ServerError: the server cannot be reached.
    """
    try:
        info = target.describe(model)
    except (UnknownModelError, ModelNotReadyError, ContractError) as error:
        return Report(model, [_failed("deployed", str(error))], truth.tolerance, {})
    version = truth.version or info.versions[-1]
    problems = _check_identity(info, version, truth)
    if repository is not None and version in info.versions:
        problems += _check_files(repository / model / str(version), truth.files)
    cases: list[Case] = []
    if version in info.versions:
        output = contract.OUTPUTS[truth.contract.kind]

        def infer(inputs: gate.Inputs) -> Any:
            answer = target.infer(model, version, inputs, parameters=truth.parameters)
            if output not in answer:
                raise ContractError(f"answered without the tensor {output}; it gave {', '.join(answer)}")
            return answer[output]

        try:
            cases = gate.compare(infer, truth.expectations, info.max_batch_size or None)
        except ServerError as error:
            if repository is None:
                raise
            cases = [_failed("runs", str(error))]  # no server involved: a file that cannot be loaded
    return Report(f"{model} version {version}", [*problems, *cases], truth.tolerance, {"version": version})


def _check_files(files: Path, expected: Mapping[str, str] | None) -> list[Case]:
    """The files of a version directory against their SHA-256, by default as its own gate.json has them."""
    if expected is None:
        try:
            expected = record.read_report(files).facts["files"]
        except RepositoryError as error:
            return [_failed(record.REPORT_FILE, str(error))]
    actual = record.file_digests(files)
    problems = [_failed(name, "is missing") for name in expected if name not in actual]
    for name, digest in actual.items():
        if expected.get(name) != digest:
            problems.append(_failed(name, "is not the file that was exported: its SHA-256 differs"))
    return problems


def _check_identity(info: ModelInfo, version: int, truth: Truth) -> list[Case]:
    """What a model says of itself, against what it should be."""
    if version not in info.versions:
        serves = ", ".join(map(str, info.versions))
        return [_failed("version", f"{version} is not deployed; what is: {serves}")]
    problems = []
    if truth.newest and info.versions[-1] > version:
        problems.append(_failed("version", f"{info.versions[-1]} is deployed, the reference is {version}"))
    try:
        described = ModelContract.from_parameters(info.name, info.parameters)
    except ContractError as error:
        return [*problems, _failed("contract", str(error))]
    for name, value in truth.contract.to_parameters().items():
        actual = described.to_parameters().get(name)
        if actual != value:
            problems.append(_failed(name, f"is {actual}; expected {value}"))
    made = described.provenance.get(version, Provenance("not recorded", "not recorded"))
    for name, actual, expected in (
        ("checkpoint_sha256", made.checkpoint_sha256, truth.checkpoint_sha256),
        ("precision", made.precision, truth.precision),
    ):
        if actual != expected:
            problems.append(_failed(name, f"is {actual}; expected {expected}"))
    return problems


def _failed(name: str, problem: str) -> Case:
    nan = float("nan")
    return Case(name, nan, nan, 0.0, problem)
