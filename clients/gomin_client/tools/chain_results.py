"""Results of a calibration: one for each chain, the Pareto set, and the choice of a chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gomin_client.errors import UsageError
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.tools.calibration import Measurement


@dataclass(frozen=True)
class ChainResult:
    """One chain over all recordings: the means of its distances, weighted by duration, and its speed.

    Attributes:
        chain: the chain, with its number of steps.
        times_real_time: seconds of audio made per second.
        log_mel_l1_db, log_magnitude_l1, to_full_db: see `Measurement`.
        is_optimal: whether no other chain is at least as fast and as near to the full chain, and better in one.
    """

    chain: SamplerSettings
    times_real_time: float
    log_mel_l1_db: float
    log_magnitude_l1: float
    to_full_db: float
    is_optimal: bool = False

    @property
    def name(self) -> str:
        """The chain in a few words: "ddim, 10 steps, eta 0.5"."""
        return chain_name(self.chain)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "chain": self.chain.to_parameters()}


def chain_name(chain: SamplerSettings) -> str:
    """A chain in a few words, without its schedule; see `ChainResult.name`."""
    eta = "" if chain.eta is None else f", eta {chain.eta:g}"
    timesteps = "" if chain.timesteps is None else f", timesteps {chain.timesteps}"
    return f"{chain.sampler}, {chain.steps} {'step' if chain.steps == 1 else 'steps'}{eta}{timesteps}"


def summarize(measurements: Sequence[Measurement]) -> list[ChainResult]:
    """One result for each chain, by number of steps, sampler, eta and timesteps.

    Args:
        measurements: of all chains on the same recordings.
    """
    by_chain: dict[SamplerSettings, list[Measurement]] = {}
    for one in measurements:
        by_chain.setdefault(one.chain, []).append(one)
    results = [_summary(chain, by_chain[chain]) for chain in sorted(by_chain, key=_order)]
    return [replace(one, is_optimal=not any(_dominates(other, one) for other in results)) for one in results]


def fastest_enough(results: Sequence[ChainResult], target: float) -> ChainResult:
    """The chain nearest to the full one among those that make at least `target` seconds of audio per second.

    Raises:
        UsageError: none is that fast.
    """
    fast = [one for one in results if one.times_real_time >= target]
    if not fast:
        fastest = max(results, key=lambda one: one.times_real_time)
        raise UsageError(
            f"--rtf-target {target:g}: no chain is that fast; the fastest is {fastest.name}, with "
            f"{fastest.times_real_time:.2f} × real time: add smaller numbers to --steps, or choose a lower target"
        )
    return min(fast, key=lambda one: (one.to_full_db, _order(one.chain)))


def shortest_within(results: Sequence[ChainResult], full: SamplerSettings, share: float) -> ChainResult:
    """The chain of fewest steps whose distance to the full chain is at most a share of that chain's to the recordings.

    Args:
        results: of all chains.
        full: the full chain, which always qualifies.
        share: for example 0.05.

    Raises:
        UsageError: the full chain was not measured.
    """
    reference = next((one for one in results if one.chain == full), None)
    if reference is None:
        raise UsageError(f"--within {100 * share:g}%: the full chain, {full.sampler}, was not measured")
    near = [one for one in results if one.to_full_db <= share * reference.log_mel_l1_db]
    return min(near, key=lambda one: (one.chain.steps or 0, one.to_full_db, _order(one.chain)))


def table(results: Sequence[ChainResult]) -> str:
    """A line for each chain, with a star for those of the Pareto set."""
    width = max([len("sampler"), *(len(one.chain.sampler or "") for one in results)])
    head = f"  {'sampler':<{width}}  steps   eta  × real time  to full dB  mel L1 dB  log mag. L1"
    if any(one.chain.timesteps is not None for one in results):
        head += "  timesteps"
    return "\n".join(
        [
            head,
            *(_row(one, width) for one in results),
            "* Pareto set: no other chain is as fast and as near to the full chain, and better in one of the two",
        ]
    )


def _row(result: ChainResult, width: int) -> str:
    chain = result.chain
    eta = "-" if chain.eta is None else f"{chain.eta:g}"
    return (
        f"{'*' if result.is_optimal else ' '} {chain.sampler:<{width}}  {chain.steps:5}  {eta:>4}  "
        f"{result.times_real_time:11.2f}  {result.to_full_db:10.3f}  {result.log_mel_l1_db:9.3f}  "
        f"{result.log_magnitude_l1:11.3f}{'' if chain.timesteps is None else f'  {chain.timesteps}'}"
    )


def _order(chain: SamplerSettings) -> tuple[int, str, float, str]:
    return chain.steps or 0, chain.sampler or "", -1.0 if chain.eta is None else chain.eta, chain.timesteps or ""


def _summary(chain: SamplerSettings, measurements: Sequence[Measurement]) -> ChainResult:
    audio_s = sum(one.audio_s for one in measurements)

    def mean(name: str) -> float:
        return float(sum(one.audio_s * getattr(one, name) for one in measurements) / audio_s)

    speed = audio_s / sum(one.elapsed_s for one in measurements)
    return ChainResult(chain, speed, mean("log_mel_l1_db"), mean("log_magnitude_l1"), mean("to_full_db"))


def _dominates(one: ChainResult, other: ChainResult) -> bool:
    """Whether one chain is as fast and as near to the full chain as another, and better in one of the two."""
    mine, theirs = ((-each.times_real_time, each.to_full_db) for each in (one, other))
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))
