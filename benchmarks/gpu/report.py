"""Results as JSON, and as tables in the form of docs/performance.md. What is not measured is called that."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.variants import MODELS, Variant
from benchmarks.report import QUICK
from gomin_client.contract.model import GAN_MODEL

UNMEASURED = "not measured"
FAILED = "failed"
SPEEDS = {"gan-1s": "GAN, 1 s", "gan-10s": "GAN, 10 s", "denoiser-1s": "denoiser step, 1 s"}
LENGTHS = {"new": "a new length in each call", "alternating": "two lengths in turn", "same": "one length"}
INSTANCES = (1, 2)
IN_FLIGHT = (1, 2, 4, 8)

Results = Mapping[str, Any]


def write(results: Results, variants: Sequence[Variant], searches: Sequence[Variant], folder: Path) -> list[Path]:
    """Write gpu.json and gpu.md into a folder, replacing older ones."""
    files = [folder / "gpu.json", folder / "gpu.md"]
    files[0].write_text(json.dumps(results, indent=2) + "\n")
    lines = [machine(results), ""]
    if results["quick"]:
        lines += [QUICK, ""]
    lines += [tables(results, variants, searches)]
    for failure in results["failures"]:
        lines += [f"Failed: {failure}", ""]
    files[1].write_text("\n".join(lines))
    return files


def machine(results: Results) -> str:
    """One sentence on what the figures were measured with."""
    facts = results["machine"]
    return f"gomin-triton {facts['gomin-triton']}; " + "; ".join(
        f"{name} {value}" for name, value in facts.items() if name != "gomin-triton"
    )


def tables(results: Results, variants: Sequence[Variant], searches: Sequence[Variant]) -> str:
    """All tables; `results` without an entry makes rows that are not measured."""
    return "\n".join(
        [
            "Milliseconds of a call, and speed relative to PyTorch:",
            "",
            *_speeds(results, variants),
            "",
            "The parity gate, max abs error and lowest SNR:",
            "",
            *_parity(results, variants),
            "",
            "The GAN with varying lengths, milliseconds of a call:",
            "",
            *_lengths(results, searches),
            "",
            "Requests of 1 s in flight through Triton, GAN, times real time and median latency:",
            "",
            *_streams(results, variants),
            "",
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |".replace("|  |", "| |"), "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _entry(results: Results, part: str, *path: str) -> Any:
    """An entry of the results: None if it was not measured."""
    found: Any = results.get(part, {})
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _cell(entry: Any, text: str) -> str:
    return UNMEASURED if entry is None else FAILED if entry == FAILED else text


def _speeds(results: Results, variants: Sequence[Variant]) -> list[str]:
    rows = []
    for variant in variants:
        row = [variant.name]
        for part in SPEEDS:
            entry = _entry(results, "speed", part, variant.name)
            first = _entry(results, "speed", part, variants[0].name)
            text = ""
            if isinstance(entry, Mapping):
                text = f"{1000 * entry['seconds']:.2f}"
                if isinstance(first, Mapping):
                    pairs = zip(first["seconds_of_rounds"], entry["seconds_of_rounds"], strict=True)
                    ratios = [reference / mine for reference, mine in pairs]
                    text += f" ({statistics.median(ratios):.2f} ×)"
            row.append(_cell(entry, text))
        rows.append(row)
    return _table(["", *SPEEDS.values()], rows)


def _parity(results: Results, variants: Sequence[Variant]) -> list[str]:
    rows = []
    for variant in variants:
        row = [variant.name]
        for model in MODELS:
            entry = _entry(results, "parity", model, variant.name)
            text = ""
            if isinstance(entry, Mapping):
                verdict = "passes" if entry["passed"] == entry["cases"] else f"{entry['passed']} of {entry['cases']}"
                text = f"{entry['max_abs_error']:.1e}, {entry['min_snr_db']:.1f} dB, {verdict}"
            row.append(_cell(entry, text))
        rows.append(row)
    return _table(["", *("GAN" if model == GAN_MODEL else "denoiser" for model in MODELS)], rows)


def _lengths(results: Results, searches: Sequence[Variant]) -> list[str]:
    rows = []
    for variant in searches:
        entries = [_entry(results, "lengths", part, variant.name) for part in LENGTHS]
        texts = [f"{1000 * entry['seconds']:.2f}" if isinstance(entry, Mapping) else "" for entry in entries]
        rows.append([variant.name, *map(_cell, entries, texts)])
    return _table(["", *LENGTHS.values()], rows)


def _streams(results: Results, variants: Sequence[Variant]) -> list[str]:
    rows = []
    for variant in variants:
        if variant.precision is None:
            continue
        for instances in INSTANCES:
            entries = [_entry(results, "streams", f"{variant.name}, {instances}", str(number)) for number in IN_FLIGHT]
            texts = [
                f"{entry['times_real_time']:.1f} ×, {1000 * entry['latency_s']['p50']:.0f} ms"
                if isinstance(entry, Mapping)
                else ""
                for entry in entries
            ]
            rows.append([variant.name, str(instances), *map(_cell, entries, texts)])
    return _table(["", "instances", *(f"{number} in flight" for number in IN_FLIGHT)], rows)
