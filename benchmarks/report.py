"""Results as JSON, as a table in Markdown and as a bar chart."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

OURS = "gomin-triton"
ONNXRUNTIME = "ONNX Runtime"  # the reference for "of sgemm"
SERVED = ("gRPC", "HTTP")  # how the names of contenders end that use a server
QUICK = "A test of the program: small networks, a tenth of the audio or less. These figures mean nothing."


def write(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write results.json, .md and .png into a folder, replacing older ones; returns the files that exist."""
    files = [folder / f"results.{extension}" for extension in ("json", "md", "png")]
    files[0].write_text(json.dumps(results, indent=2) + "\n")
    files[1].write_text(table(results))
    files[2].unlink(missing_ok=True)
    chart(results, files[2])
    return [file for file in files if file.exists()]


def table(results: Mapping[str, Any]) -> str:
    """One table for each comparison."""
    machine = results["machine"]
    products = ", ".join(f"{name} {value:.0f}" for name, value in machine["sgemm_gflops"].items())
    lines = [
        f"{machine['processor']} ({machine['model']}; {', '.join(machine['vector extensions'])}), "
        f"{machine['threads']} threads{_version(results)}. Matrix products, GFLOP/s: {products}.",
    ]
    if results.get("quick"):
        lines += ["", QUICK]
    if results.get("server_peak_mb"):
        peak = f"{results['server_peak_mb']:.0f} MB"
        lines += ["", f"With all models loaded, the peaks of the server's processes add up to {peak}."]
    for comparison in results["comparisons"]:
        contenders = comparison["contenders"]
        first = next(iter(contenders))
        rounds = contenders[first]["rounds"]
        lines += ["", f"**{comparison['title']}** ({rounds} {'round' if rounds == 1 else 'rounds'})", ""]
        lines += [
            f"| | s | × {first} | range | CPU s | GFLOP/s | of sgemm | peak MB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, figures in contenders.items():
            low, high = figures["times_as_fast_range"]
            reached = comparison["gflop"] / figures["seconds"]
            share = 100 * reached / machine["sgemm_gflops"][ONNXRUNTIME]
            lines.append(
                f"| {name} | {figures['seconds']:.3f} | {figures['times_as_fast']:.2f} | {low:.2f} – {high:.2f} "
                f"| {_cpu(name, figures['cpu_seconds'])} | {reached:.0f} | {share:.0f} % | {figures['peak_mb']:.0f} |"
            )
        lines += _served(contenders)
    return "\n".join(lines) + "\n"


def _cpu(name: str, seconds: float) -> str:
    """CPU seconds of a contender; those of a client say nothing about its server."""
    return "–" if name.endswith(SERVED) else f"{seconds:.2f}"


def _version(results: Mapping[str, Any]) -> str:
    """The version that was measured, to follow other words; empty if an older program did not store it."""
    version = results["machine"].get("packages", {}).get("gomin-triton")
    return f"; gomin-triton {version}" if version else ""


def _served(contenders: Mapping[str, Any]) -> list[str]:
    """The cost of a server: its time divided by the time of the same model in-process, round by round."""
    lines = []
    for name, figures in contenders.items():
        model, _, protocol = name.rpartition(", ")
        inside = contenders.get(f"{model}, in-process")
        if protocol in SERVED and inside is not None:
            target = model.partition(", ")[2]
            way = f"{protocol} ({target})" if target else protocol
            pairs = zip(figures["seconds_of_rounds"], inside["seconds_of_rounds"], strict=True)
            ratios = [through / within for through, within in pairs]
            lines.append(
                f"Through {way}: {statistics.median(ratios):.3f} times the seconds in-process "
                f"({min(ratios):.3f} – {max(ratios):.3f})."
            )
    return ["", *lines] if lines else []


def chart(results: Mapping[str, Any], path: Path) -> None:
    """A bar for each contender: speed relative to the first, with the range over rounds; no file without bars."""
    comparisons = [comparison for comparison in results["comparisons"] if comparison["in_chart"]]
    if not comparisons:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    heights = [len(comparison["contenders"]) + 1 for comparison in comparisons]
    size = (8, 0.34 * sum(heights))
    figure, axes = plt.subplots(
        len(heights), 1, figsize=size, height_ratios=heights, layout="constrained", squeeze=False
    )
    for axis, comparison in zip(axes[:, 0], comparisons, strict=True):
        contenders = comparison["contenders"]
        values = np.array([figures["times_as_fast"] for figures in contenders.values()])
        low, high = np.array([figures["times_as_fast_range"] for figures in contenders.values()]).T
        spread = [values - low, high - values]
        colors = ["#c4541a" if OURS in name else "#8a94a0" for name in contenders]
        axis.barh(list(contenders), values, color=colors, xerr=spread, ecolor="#333333", error_kw={"lw": 0.8})
        for place, (value, figures) in enumerate(zip(values, contenders.values(), strict=True)):
            axis.text(
                0.02, place, f"{value:.2f} ×   {figures['seconds']:.2f} s", va="center", color="white", fontsize=8
            )
        axis.invert_yaxis()
        axis.set_title(comparison["title"], loc="left", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    first = next(iter(comparisons[0]["contenders"]))
    label = f"speed relative to {first}; {results['machine']['threads']} threads{_version(results)}"
    axes[-1, 0].set_xlabel(QUICK if results.get("quick") else label, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
