"""The parity gate repeated with deployed models: in a repository on disk, or on a live server.

The reference is a checkpoint, run by PyTorch, or the cases that an export recorded beside its models, which need no
PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gomin_client.contract import model as contract
from gomin_client.contract import repository as model_repository
from gomin_client.contract.model import ModelContract, Provenance
from gomin_client.errors import ContractError, ModelNotReadyError, ServerError, UnknownModelError, UsageError
from gomin_client.transports.base import ModelInfo, Parameters, Transport
from gomin_export.errors import RepositoryError
from gomin_export.networks.registry import Architecture
from gomin_export.parity import gate, record
from gomin_export.parity.gate import Case, CaseResult, Report, Table, Tolerance
from gomin_export.repository.config import Deployment

if TYPE_CHECKING:
    from gomin_export.checkpoints.sources import CheckpointFile  # torch, which recorded cases do not need


@dataclass(frozen=True)
class Criteria:
    """What the caller of a verification asks for; None leaves it to the reference.

    Attributes:
        version: version of the models.
        precision: number format of the models.
        atol: largest max abs error allowed.
        min_snr: lowest SNR allowed, in dB.
    """

    version: int | None = None
    precision: str | None = None
    atol: float | None = None
    min_snr: float | None = None


@dataclass(frozen=True)
class Expectation:
    """What a deployed model must be.

    Attributes:
        contract: its contract with clients.
        checkpoint_sha256: SHA-256 of its checkpoint; "" for a mel front end.
        precision: its number format.
        version: its version; None for the newest deployed one.
        newest: no newer version may be deployed.
        files: file name → SHA-256 of what its version directory serves; None if unknown.
        cases: inputs and expected outputs.
        tolerance: for the outputs.
        parameters: parameters of the requests.
        reference: what computed the outputs.
    """

    contract: ModelContract
    checkpoint_sha256: str
    precision: str
    version: int | None
    newest: bool
    files: Mapping[str, str] | None
    cases: Sequence[Case]
    tolerance: Tolerance
    parameters: Parameters = field(default_factory=dict)
    reference: str = "PyTorch"


class Reference(Protocol):
    """A source of expectations."""

    def models(self) -> list[str]:
        """The names of the models that it knows."""
        ...

    def expectation(self, model: str) -> Expectation:
        """What a model must be."""
        ...


class RecordedReference:
    """The cases and reports that exports recorded in a model repository."""

    def __init__(self, repository: Path, criteria: Criteria = Criteria()) -> None:
        """Args: criteria: the tolerance is the export's unless it is given."""
        self._repository = repository
        self._criteria = criteria

    def models(self) -> list[str]:
        """Every model of the repository that an export recorded, whether it can be served or not.

        Raises:
            RepositoryError: there is none.
        """
        names = sorted({path.parent.parent.name for path in self._repository.glob(f"*/[1-9]*/{record.REPORT_FILE}")})
        if not names:
            raise RepositoryError(f"{self._repository}: has no models that gomin-export wrote")
        return names

    def expectation(self, model: str) -> Expectation:
        """The newest version in the repository as it was exported, or the version asked for.

        Raises:
            RepositoryError: the version does not exist, or was exported without records.
        """
        asked = self._criteria
        if _is_front_end(self._repository, model):  # has its own version, is always in float32
            asked = replace(asked, version=None, precision=None)
        there = model_repository.versions(self._repository / model)
        version = asked.version or max(there, default=0)
        if version not in there:
            known = ", ".join(map(str, there)) or "no versions at all"
            raise RepositoryError(f"{self._repository}: {model} has no version {asked.version}; it has {known}")
        files = self._repository / model / str(version)
        report = record.read_report(files)
        tolerance = Tolerance(
            report.tolerance.atol if asked.atol is None else asked.atol,
            report.tolerance.min_snr if asked.min_snr is None else asked.min_snr,
            report.tolerance.own_errors if asked.atol is None else 0,
        )
        return Expectation(
            ModelContract.from_parameters(model, report.facts["contract"]),
            report.facts["checkpoint_sha256"],
            asked.precision or report.facts["precision"],
            version,
            asked.version is None,
            report.facts["files"],
            record.read_vectors(files),
            tolerance,
            report.facts.get("parameters", {}),
            report.reference,
        )


def _is_front_end(repository: Path, model: str) -> bool:
    """Whether the newest version of a model was exported as a mel front end."""
    newest = max(model_repository.versions(repository / model), default=0)
    try:
        report = record.read_report(repository / model / str(newest))
    except RepositoryError:
        return False  # the caller reads it too, and reports the error
    return bool(report.facts["contract"].get(contract.PARAMETER_PREFIX + "kind") == contract.FRONT_END)


class CheckpointReference:
    """The network in a checkpoint, run by PyTorch. A mel front end is tested as a part of an ensemble."""

    def __init__(
        self,
        architecture: Architecture,
        source: CheckpointFile,
        overrides: Mapping[str, Any],
        key: str | None,
        criteria: Criteria = Criteria(),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Load the checkpoint.

        Args:
            architecture: the network's record.
            source: the checkpoint.
            overrides: config values of the network that win over the values that the tensors show.
            key: entry of a checkpoint with several state dicts.
            criteria: the precision is fp32 unless it is given.
            say: called with a sentence for everything in the checkpoint that was changed or left out.

        Raises:
            CheckpointError: the file is not a usable checkpoint of this network.
        """
        from gomin_export.checkpoints import load_network

        self._network = load_network(architecture.network_class, source.path, overrides, key, say)
        self._models = {model.name: model for model in architecture.models if not model.is_shared}
        self._contracts = architecture.contracts(self._network)
        self._sha256 = source.sha256
        self._version = criteria.version
        self._precision = criteria.precision or contract.FP32
        self._tolerance = Tolerance.of(self._precision, criteria.atol, criteria.min_snr)

    def models(self) -> list[str]:
        """The names of the models that every export makes from this checkpoint."""
        return [name for name, model in self._models.items() if not model.is_optional]

    def expectation(self, model: str) -> Expectation:
        """What a model of this checkpoint must be."""
        described = self._contracts[model]
        parameters = self._models[model].request_parameters(described, Deployment(), None)
        return Expectation(
            described,
            self._sha256,
            self._precision,
            self._version,
            False,
            None,
            self._models[model].gate_cases(self._network, parameters),
            self._tolerance,
            parameters,
        )


def verify(
    target: Transport,
    model: str,
    expected: Expectation,
    repository: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Compare one deployed model with the expectation.

    Args:
        target: the server or repository.
        model: its name.
        expected: what it must be.
        repository: the target's directory, if it is a repository on disk: its files are compared too.
        say: called with the lines of the report, with each outcome as soon as it is known.

    Returns:
        A report. Everything that differs, not only outputs, is a failed case. If the fact `deployed` is false, the
        target does not have the model or the version, and nothing was compared. Without outcomes, only the identity
        was compared, and the fact `note` is the reason.

    Raises:
        ServerError: the server cannot be reached.
    """
    facts: dict[str, Any] = {"deployed": False, "reference": expected.reference}

    def not_compared(problem: str) -> Report:
        report = Report(model, [_failed("deployed", problem)], expected.tolerance, facts)
        for line in report.lines():
            say(line)
        return report

    try:
        info = target.describe(model)
    except (UnknownModelError, ModelNotReadyError, ContractError) as error:
        facts["deployed"] = isinstance(error, ContractError)
        return not_compared(str(error))
    version = facts["version"] = expected.version or info.versions[-1]
    if version not in info.versions:
        return not_compared(f"version {version} is not available; available: {', '.join(map(str, info.versions))}")
    facts["deployed"] = True
    outcomes = _check_identity(info, version, expected)
    if repository is not None:
        outcomes += _check_files(repository / model / str(version), expected.files)
    named = f"{model} version {version}"
    cases = expected.cases
    if expected.contract.kind == contract.DIFFUSION_STREAM and not target.can_stream:
        cases = []
        facts["note"] = "its outputs were not compared: it sends several answers, which needs grpc:// or local:"
    names = [outcome.name for outcome in outcomes] + [case.name for case in cases]
    table = Table(expected.tolerance, names)
    for line in (*table.head(named, expected.reference), *map(table.row, outcomes)) if names else ():
        say(line)

    def show(outcome: CaseResult) -> None:
        say(table.row(outcome))

    try:
        outcomes += gate.compare(_caller(target, model, version, expected), cases, info.max_batch_size or None, show)
    except (ServerError, UsageError) as error:
        if repository is None:
            raise
        # there is no server: a file cannot be loaded, or this installation lacks the operators that it needs
        outcomes.append(_failed("runs", str(error)))
        show(outcomes[-1])
    report = Report(named, outcomes, expected.tolerance, facts)
    for line in report.conclusion():
        say(line)
    return report


def _caller(target: Transport, model: str, version: int, expected: Expectation) -> gate.Infer:
    output = contract.OUTPUTS[expected.contract.kind]

    def infer(inputs: gate.Inputs) -> Any:
        if expected.contract.kind == contract.DIFFUSION_STREAM:
            *_, answer = target.infer_stream(model, version, inputs, parameters=expected.parameters)
        else:
            answer = target.infer(model, version, inputs, parameters=expected.parameters)
        if output not in answer:
            raise ContractError(f"answered without the tensor {output}; it gave {', '.join(answer)}")
        return answer[output]

    return infer


def _check_files(files: Path, expected: Mapping[str, str] | None) -> list[CaseResult]:
    """Compare the files of a version directory with their SHA-256, by default those in its own parity.json."""
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


def _check_identity(info: ModelInfo, version: int, expected: Expectation) -> list[CaseResult]:
    """Compare version, contract and provenance of a deployed model with the expectation."""
    problems = []
    if expected.newest and info.versions[-1] > version:
        problems.append(_failed("version", f"{info.versions[-1]} is deployed, the reference is {version}"))
    try:
        described = ModelContract.from_parameters(info.name, info.parameters)
    except ContractError as error:
        return [*problems, _failed("contract", str(error))]
    for name, value in expected.contract.to_parameters().items():
        actual = described.to_parameters().get(name)
        if actual != value:
            problems.append(_failed(name, f"is {actual}; expected {value}"))
    made = described.provenance.get(version, Provenance("not recorded", "not recorded"))
    for name, actual, wanted in (
        ("checkpoint_sha256", made.checkpoint_sha256, expected.checkpoint_sha256),
        ("precision", made.precision, expected.precision),
    ):
        if actual != wanted:
            problems.append(_failed(name, f"is {actual}; expected {wanted}"))
    return problems


def _failed(name: str, problem: str) -> CaseResult:
    nan = float("nan")
    return CaseResult(name, nan, nan, 0.0, problem)
