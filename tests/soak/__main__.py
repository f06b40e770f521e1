"""make soak: a real server under mixed load, with cancellations and killed processes: python -m tests.soak.

Exits with 1 if an answer was wrong, a request was lost, or a resource grew.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.soak.resources import NAMES
from tests.soak.soak import Result, Settings, halves, soak
from tests.support import GOLDEN, SHARED_GAN


def main() -> int:
    """Run a soak and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="default %(default)g")
    parser.add_argument("--repository", type=Path, help="with the demo GAN and a diffusion model; default: exported")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as home:
        repository = options.repository or exported(Path(home) / "models")
        result = soak(repository, Path(home), Settings(60 * options.minutes), say)
    show(result)
    return 1 if result.problems else 0


def exported(home: Path) -> Path:
    """The demo GAN and the small diffusion model."""
    from gomin_export import pipeline
    from gomin_export.plan import ExportOptions
    from gomin_export.repository.config import Deployment

    say("exporting the models")
    one_thread = ExportOptions(deployment=Deployment(threads=1))
    pipeline.export("gan", SHARED_GAN, home, one_thread)
    pipeline.export("diffusion", GOLDEN / "diffusion_small.pt", home, one_thread)
    return home


def show(result: Result) -> None:
    """Print the figures as Markdown."""
    print("\n| resource | without faults: first half | last half | with faults: first half | last half |")
    print("|---|---|---|---|---|")
    columns = [*halves(result.calm), *halves(result.disturbed)]
    for name in NAMES:
        unit = " (MiB)" if name.endswith("memory") else ""
        values = " | ".join(f"{getattr(column, name):.0f}" for column in columns)
        print(f"| {name.replace('_', ' ')}{unit} | {values} |")
    print(f"\nsamples: {len(result.calm)} without faults, {len(result.disturbed)} with faults")
    print(f"requests: {', '.join(f'{count} {name}' for name, count in sorted(result.counts.outcomes.items()))}")
    for name, count in result.faults.items():
        print(f"{count} × {name}, an answer of the next server after at most {result.recovery_s[name]:.1f} s")
    print("largest difference:", ", ".join(f"{model} {value:.1e}" for model, value in result.counts.difference.items()))
    for line in result.problems or ["no problem"]:
        print(line)


def say(text: str) -> None:
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
