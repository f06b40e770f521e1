"""The parity gate replayed against what is deployed: a repository on disk, or a live server.

The reference is a checkpoint, computed by PyTorch, or the vectors that an export recorded beside its models, which need
no PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gomin_client import contract, model_repository
from gomin_client.contract import ModelContract, Provenance
from gomin_client.errors import ContractError, ServerError, UnknownModelError
from gomin_client.transports.base import ModelInfo, Transport
from gomin_export import parity, records
from gomin_export.errors import RepositoryError
from gomin_export.parity import Case, Expectation, Report, Tolerance


@dataclass(frozen=True)
class Truth:
    """What a deployed model must be.

    Attributes:
        contract: what it tells clients.
        checkpoint_sha256: of its checkpoint.
        precision: what it computes in.
        version: its version; None where any will do.
        files: file name → SHA-256 of what its version directory serves; None where that is not known.
        expectations: what it must answer.
        tolerance: how far off it may be.
    """

    contract: ModelContract
    checkpoint_sha256: str
    precision: str
    version: int | None
    files: Mapping[str, str] | None
    expectations: Sequence[Expectation]
    tolerance: Tolerance


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
        """Every GOMIN model of the repository.

        Raises:
            RepositoryError: there is none.
        """
        names = [
            name
            for name in model_repository.models(self._repository)
            if contract.PARAMETER_PREFIX + "kind" in self._parameters(name)
        ]
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
        report = records.read_report(files)
        try:
            recorded = report["tolerance"]
            atol = recorded["atol"] if self._atol is None else self._atol
            min_snr = recorded["min_snr_db"] if self._min_snr is None else self._min_snr
            return Truth(
                ModelContract.from_parameters(model, self._parameters(model)),
                report["checkpoint_sha256"],
                self._precision or report["precision"],
                version,
                report["files"],
                records.read_vectors(files),
                Tolerance(atol, min_snr),
            )
        except (KeyError, TypeError) as error:
            raise RepositoryError(
                f"{files / records.REPORT_FILE}: missing or damaged; it is written by gomin-export. "
                "Give --ckpt to verify against PyTorch itself"
            ) from error

    def _parameters(self, model: str) -> dict[str, str]:
        return model_repository.read_config(self._repository / model / model_repository.CONFIG)


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
        self._sha256 = records.sha256(checkpoint)
        self._version = version
        self._precision = precision or contract.FP32
        self._tolerance = Tolerance.of(self._precision, atol, min_snr)

    def models(self) -> list[str]:
        """The models that an export makes of this checkpoint."""
        return list(self._contracts)

    def truth(self, model: str) -> Truth:
        """What a model of this checkpoint must be."""
        from gomin_export.probes import EXPECTATIONS

        described = self._contracts[model]
        expectations = EXPECTATIONS[described.kind](self._network)
        return Truth(described, self._sha256, self._precision, self._version, None, expectations, self._tolerance)


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
    except UnknownModelError as error:
        return Report(model, [_failed("deployed", str(error))], truth.tolerance, {})
    version = truth.version or info.versions[-1]
    problems = _check_identity(info, version, truth)
    if repository is not None and truth.files is not None and version in info.versions:
        for name, digest in records.file_digests(repository / model / str(version)).items():
            if truth.files.get(name) != digest:
                problems.append(_failed(name, "is not the file that was exported: its SHA-256 differs"))
    cases: list[Case] = []
    if version in info.versions:
        output = contract.OUTPUTS[truth.contract.kind]

        def infer(inputs: parity.Inputs) -> Any:
            answer = target.infer(model, version, inputs)
            if output not in answer:
                raise ContractError(f"answered without the tensor {output}; it gave {', '.join(answer)}")
            return answer[output]

        try:
            cases = parity.compare(infer, truth.expectations, info.max_batch_size or None)
        except ServerError as error:
            if repository is None:
                raise
            cases = [_failed("runs", str(error))]  # no server involved: a file that cannot be loaded
    return Report(f"{model} version {version}", [*problems, *cases], truth.tolerance, {"version": version})


def _check_identity(info: ModelInfo, version: int, truth: Truth) -> list[Case]:
    """What a model says of itself, against what it should be."""
    if version not in info.versions:
        serves = ", ".join(map(str, info.versions))
        return [_failed("version", f"{version} is not deployed; what is: {serves}")]
    problems = []
    if truth.version is not None and info.versions[-1] > version:
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
