"""A plot of a calibration: distance over speed, a point for each chain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gomin_client.batch.plot import require_matplotlib
from gomin_client.errors import UsageError
from gomin_client.files.atomic import atomic_write
from gomin_client.tools.chain_results import ChainResult

_PANELS = (
    ("to_full_db", "mel L1 to the full chain (dB)"),
    ("log_mel_l1_db", "mel L1 to the recordings (dB)"),
)


def check(path: Path) -> None:
    """Refuse a plot that cannot be drawn, before any work is done.

    Raises:
        UsageError: matplotlib is not installed, or the name of another kind of file.
    """
    if path.suffix.lower() != ".png" or path.is_dir():
        raise UsageError(f"--plot {path}: expected a file name that ends with .png")
    require_matplotlib()


def save(path: Path, results: Sequence[ChainResult], chosen: ChainResult | None = None) -> None:
    """Draw all chains into a PNG file: left their distance to the full chain, right that to the recordings.

    Args:
        path: the file.
        results: at least one; on the left, a line connects those of the Pareto set.
        chosen: the chain with a circle around it, if any.

    Raises:
        FileError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    at_each_point = "number of steps"
    if any(one.chain.timesteps is not None for one in results):
        at_each_point += ", * with explicit timesteps"
    samplers = sorted({one.chain.sampler or "" for one in results})
    for axes, (measure, label) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        if measure == "to_full_db":  # of which, with the speed, the Pareto set is
            front = sorted((one.times_real_time, one.to_full_db) for one in results if one.is_optimal)
            axes.plot(*zip(*front, strict=True), color="0.7", linewidth=1, zorder=1, label="Pareto set")
        for index, sampler in enumerate(samplers):
            points = [one for one in results if one.chain.sampler == sampler]
            speeds, distances = [one.times_real_time for one in points], [getattr(one, measure) for one in points]
            axes.scatter(speeds, distances, s=22, color=f"C{index % 10}", label=sampler, zorder=2)
            for one, x, y in zip(points, speeds, distances, strict=True):
                eta = f" η {one.chain.eta:g}" if one.chain.eta else ""
                star = "" if one.chain.timesteps is None else "*"
                axes.annotate(f"{one.chain.steps}{star}{eta}", (x, y), (3, 3), textcoords="offset points", fontsize=7)
        if chosen is not None:
            at = [chosen.times_real_time], [getattr(chosen, measure)]
            axes.scatter(*at, s=130, facecolors="none", edgecolors="black", label=f"chosen: {chosen.name}", zorder=3)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"× real time; at each point: {at_each_point}")
        axes.set_ylabel(label)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=8)
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=110)
