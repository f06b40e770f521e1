"""The options of `gomin-client calibrate`; heavy imports wait."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gomin_client.cli import options as o
from gomin_client.cli.model_options import ConnectionOptions, Model, RequestOptions
from gomin_client.errors import UsageError

if TYPE_CHECKING:
    from gomin_client.inference.pinned import PinnedModel
    from gomin_client.sampling.settings import SamplerSettings
    from gomin_client.tools.chain_results import ChainResult

_T = TypeVar("_T")
_PERCENTAGE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")


@dataclass(frozen=True)
class CalibratedModelOptions(RequestOptions):
    """The diffusion model; its chains come from the grid."""

    model: Model = "diffusion"
    connection: ConnectionOptions = field(default_factory=ConnectionOptions)

    def open(self) -> PinnedModel:
        """Connect to the model.

        Raises:
            UsageError: it is not a diffusion model.
            GominError: see `Vocoder`.
        """
        opened = self.connect(self.connection.build())
        if opened.sampling is None:
            opened.close()
            raise UsageError(f"model {opened.model} has no sampling chain: choose a diffusion model with --model")
        return opened


@dataclass(frozen=True)
class GridOptions:
    """The chains that are measured."""

    samplers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,…",
            help="Samplers of the grid. Default: all. The full chain, ddpm, is always measured.",
            show_default=False,
        ),
    ] = None
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER,NUMBER,…",
            help="Numbers of steps, of samplers that take any number. Default: 5,10,15,20,25.",
            show_default=False,
        ),
    ] = None
    timesteps: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER,NUMBER,…",
            help="Timesteps of one more chain of each sampler that takes them, such as those that --search found on "
            "other recordings. May be repeated.",
            show_default=False,
        ),
    ] = None
    eta: Annotated[
        str | None,
        typer.Option(
            metavar="0…1,0…1,…", help="Shares of fresh noise in each ddim step. Default: 0.", show_default=False
        ),
    ] = None

    def chains(self, schedule: str, num_diffusion_steps: int, searched: Sequence[int] = ()) -> list[SamplerSettings]:
        """The chains, the full one first.

        Args:
            schedule: see `calibration.grid`.
            num_diffusion_steps: see `calibration.grid`.
            searched: see `calibration.grid`.

        Raises:
            UsageError: a value that is not a number, or that no sampler takes.
        """
        from gomin_client.tools.calibration import grid

        return grid(
            _values("--samplers", self.samplers, str, "names"),
            _values("--steps", self.steps, int, "whole numbers"),
            _values("--eta", self.eta, float, "numbers"),
            schedule,
            num_diffusion_steps,
            self.timesteps or (),
            searched,
        )


MOST_CHAINS = 60


@dataclass(frozen=True)
class SearchOptions:
    """The search for timesteps."""

    search: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER,NUMBER,…",
            help="Search for the timesteps with which chains of so many steps come nearest to the full chain, for each "
            "sampler of the grid that takes timesteps. Each search runs at most --search-chains chains on every "
            "recording.",
            show_default=False,
        ),
    ] = None
    search_chains: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help=f"Most chains of one search: more of them may find nearer ones. Default: {MOST_CHAINS}.",
            show_default=False,
        ),
    ] = None

    @property
    def most_chains(self) -> int:
        """Most chains of one search."""
        return MOST_CHAINS if self.search_chains is None else self.search_chains

    def steps(self) -> list[int]:
        """The numbers of steps; empty without a search.

        Raises:
            UsageError: a value that is not a whole number, or no chains to search with.
        """
        if self.search_chains is not None and self.search is None:
            raise UsageError(f"--search-chains {self.search_chains}: is a limit of --search: give that too")
        if self.most_chains < 2:
            raise UsageError(f"--search-chains {self.search_chains}: expected 2 or more")
        return _values("--search", self.search, int, "whole numbers") or []

    def starts(self, chains: Sequence[SamplerSettings]) -> list[SamplerSettings]:
        """The chains of a grid that searches begin with.

        Raises:
            UsageError: a search is wanted, and no sampler of the grid takes timesteps.
        """
        from gomin_client.sampling.registry import one_of, that_take
        from gomin_client.tools.timestep_search import starts

        found = starts(chains, self.steps())
        if self.search is not None and not found:
            raise UsageError(
                f"--search {self.search}: no sampler of the grid takes timesteps: add {one_of(that_take('timesteps'))}"
            )
        return found


@dataclass(frozen=True)
class ChoiceOptions:
    """Which chain is chosen, and what for."""

    rtf_target: Annotated[
        float | None,
        typer.Option(
            metavar="FACTOR",
            help="Choose the chain nearest to the full chain among those with at least FACTOR × real time.",
            show_default=False,
        ),
    ] = None
    within: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT%",
            help="Choose the chain with the fewest steps whose mel distance to the full chain's result is at most this "
            "share of the full chain's mel distance to the recordings, such as 5%.",
            show_default=False,
        ),
    ] = None
    apply: Annotated[
        Path | None,
        typer.Option(
            metavar="REPOSITORY",
            help="Write the chosen chain into config.pbtxt in this model repository, as the model's default chain.",
            show_default=False,
        ),
    ] = None

    def check(self) -> None:
        """Refuse choices that contradict each other.

        Raises:
            UsageError: they do, or a value is out of range.
        """
        if self.rtf_target is not None and self.within is not None:
            raise UsageError("--rtf-target and --within are two ways to choose: give one of them")
        if self.rtf_target is not None and not 0 < self.rtf_target < math.inf:
            raise UsageError(f"--rtf-target {self.rtf_target:g}: expected a finite number above 0")
        if self.apply is not None and self.rtf_target is None and self.within is None:
            raise UsageError("--apply writes the chosen chain: give --rtf-target or --within too")
        if self.within is not None:
            _share(self.within)

    def configs(self, model: PinnedModel) -> list[Path]:
        """The config.pbtxt files that --apply will write: of the model, and of its twin that streams; [] without it.

        Raises:
            UsageError: the repository does not have the model, or another one of that name.
            FileError, ContractError: the file cannot be changed; see `with_default_chain`.
        """
        from gomin_client.contract.model import DIFFUSION_STREAM, ModelContract
        from gomin_client.contract.repository import CONFIG, read_config
        from gomin_client.sampling.settings import SamplerSettings
        from gomin_client.tools.default_chain import with_default_chain

        if self.apply is None:
            return []
        config = self.apply / model.model / CONFIG
        if not config.is_file():
            raise UsageError(
                f"--apply {self.apply}: has no {model.model}/{CONFIG}: expected the model repository, a folder"
            )
        there = ModelContract.from_parameters(model.model, read_config(config))
        if not model.contract.same_model(there, model.version):
            raise UsageError(
                f"--apply {self.apply}: its {model.model} is not version {model.version} at {model.url}, which is "
                "measured: give the repository that is served there"
            )
        twin = self.apply / f"{model.model}_stream" / CONFIG
        configs = [config]
        if twin.is_file():
            streamed = ModelContract.from_parameters(twin.parent.name, read_config(twin))
            mine, its = (contract.provenance.get(model.version) for contract in (there, streamed))
            if streamed.kind == DIFFUSION_STREAM and mine and its and mine.checkpoint_sha256 == its.checkpoint_sha256:
                configs.append(twin)
            else:
                typer.echo(f"warning: {twin}: is of another checkpoint; its default chain stays as it is", err=True)
        for each in configs:
            with_default_chain(each, model.sampling or SamplerSettings())  # before hours of work, not after
        return configs

    def choose(self, results: Sequence[ChainResult], full: SamplerSettings) -> ChainResult | None:
        """The chosen chain; None without --rtf-target and --within.

        Raises:
            UsageError: no chain is fast enough.
        """
        from gomin_client.tools.chain_results import fastest_enough, shortest_within

        if self.rtf_target is not None:
            return fastest_enough(results, self.rtf_target)
        if self.within is not None:
            return shortest_within(results, full, _share(self.within))
        return None


@dataclass(frozen=True)
class CalibrationReportOptions:
    """Where results go."""

    measurements: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Keep the measurements in FILE, in JSON Lines. What it contains is not measured again: the same "
            "command continues after an interruption.",
        ),
    ] = Path("calibration.jsonl")
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw distances over speed into FILE.png.", show_default=False),
    ] = None
    as_json: o.Json = False


def _values(option: str, text: str | None, read: Callable[[str], _T], expected: str) -> list[_T] | None:
    """The values of an option that takes several, with commas between them.

    Raises:
        UsageError: one cannot be read.
    """
    if text is None:
        return None
    try:
        values = [read(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values:
        raise UsageError(f"{option} {text}: expected {expected}, with commas between them")
    return values


def _share(percentage: str) -> float:
    """0.05 of "5%".

    Raises:
        UsageError: it is not a percentage.
    """
    match = _PERCENTAGE.fullmatch(percentage.strip())
    if match is None:
        raise UsageError(f"--within {percentage}: expected a percentage, such as 5%")
    return float(match[1]) / 100
