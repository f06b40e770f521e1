"""What an export will do: its options, and the plan made from them before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gomin_client.contract import model as contract
from gomin_client.contract.model import FP16, ModelContract, Provenance
from gomin_client.contract.repository import CONFIG, parse_config, versions
from gomin_client.errors import UsageError
from gomin_client.native.library import OperatorLibrary, require_library
from gomin_client.transports.base import Parameters
from gomin_export.choices import NATIVE, TARGETS
from gomin_export.networks.base import MelInverter
from gomin_export.networks.registry import Architecture
from gomin_export.networks.served import EnsembleModel, ServedModel
from gomin_export.onnx.forms import GraphOptions
from gomin_export.parity.gate import Tolerance
from gomin_export.repository import fingerprint, place
from gomin_export.repository.config import Deployment, config_text
from gomin_export.repository.fingerprint import Recipe
from gomin_export.repository.place import StagedModel
from gomin_export.repository.staging import require_writable


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        overrides: config values of the network that win over the values that the tensors show.
        key: entry of a checkpoint with several state dicts.
        graph: choices that change the ONNX graph.
        atol: largest max abs error allowed; None for the default of the precision.
        min_snr: lowest SNR allowed, in dB; None for the default of the precision.
        deployment: settings of config.pbtxt.
        overwrite_config: replace an existing config.pbtxt.
        version: version number; None for the next free one.
        keep: number of versions to keep; None for all.
        stream: make the models that are made only if they are asked for: a twin of a chain that streams its steps.

    Raises:
        UsageError: the target is unknown, a graph for CPUs is combined with an option that excludes it, or the library
            of its operators is not installed.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    graph: GraphOptions = field(default_factory=GraphOptions)
    atol: float | None = None
    min_snr: float | None = None
    deployment: Deployment = field(default_factory=Deployment)
    overwrite_config: bool = False
    version: int | None = None
    keep: int | None = None
    stream: bool = False

    def __post_init__(self) -> None:
        if self.graph.target not in TARGETS:
            raise UsageError(f"--target {self.graph.target}: expected {', '.join(TARGETS)}")
        if self.graph.target == TARGETS[0]:
            return
        for refused, why in (
            (self.graph.precision == FP16, "--precision fp16: CPUs compute in float32"),
            (not self.graph.lowering, "--no-lowering: this form is a lowering"),
            (self.deployment.for_gpus, f"{self.deployment.for_gpus}: GPUs are faster with --target any"),
            (
                self.graph.target == NATIVE and self.deployment.accelerator == "openvino",
                "--accelerator openvino: OpenVINO has operators of its own, use --target cpu (GAN) or any",
            ),
        ):
            if refused:
                raise UsageError(f"--target {self.graph.target} cannot be combined with {why}")
        _ = self.library  # before any work

    @cached_property
    def library(self) -> OperatorLibrary | None:
        """The library of the graph's operators; None if it has only ONNX's."""
        if self.graph.target != NATIVE:
            return None
        from gomin_export.onnx.operators import OPERATORS

        return require_library(
            OPERATORS, f"--target {NATIVE}", "reinstall gomin-triton; in a clone, python native/build.py is enough"
        )

    @property
    def tolerance(self) -> Tolerance:
        """The tolerance of the parity gate."""
        return Tolerance.of(self.graph.precision, self.atol, self.min_snr)


@dataclass(frozen=True)
class PlannedModel:
    """One model of an export.

    Attributes:
        served: its record.
        contract: its contract with clients.
        version: its version number: that of the export, or the front end's own.
        exists: the version is in the repository, and was made by the same recipe.
        recipe: everything that determines its files; see `fingerprint`.
        config: text of a new config.pbtxt; None keeps the existing one.
        dropped: versions to be removed.
        parameters: parameters of the parity gate's requests.
    """

    served: ServedModel
    contract: ModelContract
    version: int
    exists: bool
    recipe: Recipe
    config: str | None
    dropped: list[int]
    parameters: Parameters

    @property
    def name(self) -> str:
        """Its name in the repository."""
        return self.served.name


@dataclass(frozen=True)
class ExportPlan:
    """What an export will do.

    Attributes:
        repository: the model repository.
        version: version number of all its models but the mel front end, which has its own.
        models: in the order in which they are placed.
    """

    repository: Path
    version: int
    models: tuple[PlannedModel, ...]

    def staged(self, homes: Sequence[Path], provenance: Mapping[str, Provenance]) -> list[StagedModel]:
        """The models in staging directories.

        Args:
            homes: a directory for each model.
            provenance: model → provenance of its new version, if there is a new version.
        """
        return [
            StagedModel(
                model.name,
                model.contract,
                model.version,
                home,
                model.config,
                provenance.get(model.name),
                model.served.is_shared,
            )
            for model, home in zip(self.models, homes, strict=True)
        ]

    def config_texts(self, provenance: Mapping[str, Provenance] | None = None) -> dict[str, str]:
        """Model → text of its config.pbtxt.

        Args:
            provenance: model → provenance of its new version, as far as it is known.
        """
        staged = self.staged([self.repository] * len(self.models), provenance or {})
        return {
            planned.name: place.final_config(self.repository, model, planned.dropped)
            for planned, model in zip(self.models, staged, strict=True)
        }

    @property
    def exists(self) -> bool:
        """Whether all models are in the repository, made by the same recipes."""
        return all(model.exists for model in self.models)

    @property
    def dropped(self) -> dict[str, list[int]]:
        """Model → versions to be removed."""
        return {model.name: model.dropped for model in self.models}

    @property
    def paths(self) -> list[Path]:
        """The version directories."""
        return [self.repository / model.name / str(model.version) for model in self.models]

    @property
    def newer(self) -> str:
        """Advice if there are newer versions, which servers and clients prefer; empty otherwise."""
        own = [model.name for model in self.models if not model.served.is_shared]
        newest = max(number for name in own for number in [0, *versions(self.repository / name)])
        if newest <= self.version:
            return ""
        return f"; but version {newest} is newer: --version {newest + 1} makes it the newest again"

    def is_renumbered_by(self, later: ExportPlan) -> bool:
        """Whether the models of this plan are those of a later one but for their version numbers.

        A file of a model does not contain its version. The front end may be in the repository now: it was placed by
        another export.
        """
        return len(self.models) == len(later.models) and all(
            (old.served, old.contract, old.recipe) == (new.served, new.contract, new.recipe)
            and (old.exists == new.exists or (new.exists and new.served.is_shared))
            for old, new in zip(self.models, later.models, strict=True)
        )

    @property
    def changes(self) -> bool:
        """Whether anything will be written or removed."""
        return (
            not self.exists
            or any(self.dropped.values())
            or any(
                not (path := self.repository / model / CONFIG).exists()
                or path.read_text(encoding="utf-8").rstrip() != text.rstrip()
                for model, text in self.config_texts().items()
            )
        )


def make_plan(
    architecture: Architecture, network: MelInverter, checkpoint_sha256: str, repository: Path, options: ExportOptions
) -> ExportPlan:
    """Plan an export; nothing is written.

    Args:
        architecture: the network's record.
        network: with the weights of the checkpoint.
        checkpoint_sha256: SHA-256 of the checkpoint file.
        repository: the model repository.
        options: of the export.

    Raises:
        RepositoryError: the repository cannot take the models.
        UsageError: options contradict each other.
    """
    require_writable(repository.resolve())
    deployment, precision = options.deployment, options.graph.precision
    if (deployment.sampling or deployment.tile_frames) and all(
        model.kind != contract.DIFFUSION for model in architecture.models
    ):
        raise UsageError(f"{architecture.name} models have no sampling chain: sampler settings have no effect on them")
    asked = [model for model in architecture.models if options.stream or not model.is_optional]
    models = _with_front_end(asked, architecture.name, network, repository)
    contracts = {model.name: model.described(network) for model in models}
    configs: dict[str, str | None] = {}
    parameters: dict[str, Parameters] = {}
    for model in models:
        described = contracts[model.name]
        place.check_contract(repository, model.name, described, options.overwrite_config)
        text = config_text(model, described, _fitting(model, deployment, repository, configs))
        config = place.choose_config(repository, model.name, text, deployment, precision, options.overwrite_config)
        if config is None and options.library is not None and model.has_weights:
            place.check_operators(repository, model.name, options.library.operators)
        configs[model.name] = config
        kept = repository / model.holds_chain / CONFIG if configs[model.holds_chain] is None else None
        parameters[model.name] = model.request_parameters(described, deployment, kept)
    recipe = fingerprint.make_recipe(
        checkpoint_sha256,
        options.key,
        vars(network.config),
        options.graph,
        next((chosen for chosen in parameters.values() if chosen), None),
        options.library,
    )
    version, exists = _choose_version(
        repository, [model.name for model in models if not model.is_shared], recipe, options
    )

    def planned(model: ServedModel) -> PlannedModel:
        own = (version, exists, recipe)
        number, is_there, made_by = _choose_shared(repository, model, network) if model.is_shared else own
        dropped = place.dropped_versions(repository, model.name, number, options.keep)
        name = model.name
        return PlannedModel(model, contracts[name], number, is_there, made_by, configs[name], dropped, parameters[name])

    return ExportPlan(repository, version, tuple(map(planned, models)))


def _with_front_end(
    models: Sequence[ServedModel], architecture: str, network: MelInverter, repository: Path
) -> list[ServedModel]:
    """The network's models, with a name for the front end that no front end of other settings has.

    One config.pbtxt serves all versions of a model, so they cannot differ in their settings.
    """
    named: list[ServedModel] = []
    for model in models:
        if model.is_shared:
            own = f"{model.name}_{architecture}"
            described = model.described(network)
            taken = not place.has_contract(repository, model.name, described)
            placed = (repository / own / CONFIG).exists() and place.has_contract(repository, own, described)
            named.append(replace(model, name=own) if taken or placed else model)
        elif isinstance(model, EnsembleModel):
            front_end = next(known.name for known in named if known.is_shared)
            named.append(replace(model, front_end=front_end))
        else:
            named.append(model)
    return named


def _fitting(
    model: ServedModel, deployment: Deployment, repository: Path, configs: Mapping[str, str | None]
) -> Deployment:
    """The settings of a model: Triton does not start with an ensemble of larger batches than those of its vocoder.

    Args:
        model: the model.
        deployment: the settings asked for.
        repository: the model repository.
        configs: model → text of its new config.pbtxt, of the models before this one; None keeps the existing one.
    """
    if not isinstance(model, EnsembleModel) or configs[model.vocoder.name] is not None:
        return deployment
    _, batch = parse_config(repository / model.vocoder.name / CONFIG)
    return replace(deployment, max_batch_size=batch or None)


def _choose_shared(repository: Path, model: ServedModel, network: MelInverter) -> tuple[int, bool, Recipe]:
    """Version of a shared model, whether it exists, and its recipe. Ensembles call the newest version: it must fit."""
    recipe = fingerprint.make_shared_recipe(model, network)
    newest = max(versions(repository / model.name), default=0)
    exists = newest > 0 and fingerprint.find_export(repository, [model.name], recipe, newest) is not None
    return (newest, True, recipe) if exists else (newest + 1, False, recipe)


def _choose_version(repository: Path, models: list[str], recipe: Recipe, options: ExportOptions) -> tuple[int, bool]:
    """The version number of the export, and whether it exists already by the same recipe."""
    found = fingerprint.find_export(repository, models, recipe, options.version)
    if found is not None and options.version is None and options.keep is not None:
        newer = max(sum(number > found for number in versions(repository / model)) for model in models)
        if newer >= options.keep:
            found = None  # it would be dropped: the export is made again, as the newest version
    if found is not None:
        return found, True
    return place.choose_version(repository, models, options.version), False
