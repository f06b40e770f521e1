"""Quality of reconstructions: python -m benchmarks.quality [NAME=FOLDER …].

Exports the demo checkpoints, or those of --gan and --diffusion, reconstructs the recordings of each folder in-process,
and prints a Markdown table for each folder: the mean distances of `gomin-client compare` between each recording and its
reconstruction by each model, and by Griffin-Lim. Noise and start phases have fixed seeds: on one machine, a second run
prints the same figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import console
from benchmarks.griffin_lim import griffin_lim
from gomin_client import Vocoder
from gomin_client.batch.inputs import find_sources
from gomin_client.errors import GominError
from gomin_client.files.formats import AUDIO
from gomin_client.mel.features import MelConfig, Wave, mel_spectrogram
from gomin_client.tools.compare import Distance, distance, read_mono
from tests.support import DEMO_CHECKPOINT, EXAMPLES, run

SEED = 0
ITERATIONS = 32
SILENCE = 1e-4  # a recording whose peak is below it has nothing to compare
CHAINS = {"full chain": None, "`fast`": "fast"}
COLUMNS: Mapping[str, Callable[[Distance], float]] = {
    "log-mel L1, dB": lambda found: found.log_mel_l1_db,
    "spectral convergence": lambda found: found.spectral_convergence,
    "log magnitude L1": lambda found: found.log_magnitude_l1,
    "SNR, dB": lambda found: found.snr_db,
}


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a recording.

    Attributes:
        path: of the recording.
        wave: (samples,), mono, at the sample rate of the mel settings.
    """

    path: Path
    wave: Wave


def main() -> None:
    """Measure and print."""
    options = _parser().parse_args()
    folders = dict(map(_named, options.sets))
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        vocoders = exported(Path(name), options, stack)
        config = common_settings(vocoders)
        makers = {**{name: _reconstruction(each) for name, each in vocoders.items()}, **_griffin_lim(config)}
        for title, folder in folders.items():
            recordings = excerpts(folder, config, options.seconds, options.most)
            if not recordings:
                raise SystemExit(f"{folder}: contains no recordings that are not silent")
            found = {system: measured(system, make, recordings, config, results) for system, make in makers.items()}
            print("\n".join(table(title, recordings, found, config)), flush=True)
    if options.json:
        options.json.write_text("".join(json.dumps(line) + "\n" for line in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description="Quality of reconstructions.")
    parser.add_argument(
        "sets", nargs="*", metavar="NAME=FOLDER", default=[f"examples={EXAMPLES[0].parent}"], help="Recordings."
    )
    home = DEMO_CHECKPOINT.parent
    for kind in ("gan", "diffusion"):
        parser.add_argument(
            f"--{kind}",
            type=Path,
            default=home / f"demo_{kind}.pt",
            metavar="CKPT",
            help="Checkpoint, or none.",
        )
    parser.add_argument("--target", default="any", help="Of both exports.")
    parser.add_argument("--seconds", type=float, default=None, help="The beginning of each recording only.")
    parser.add_argument("--most", type=int, default=None, help="Recordings of each folder, evenly spaced by name.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="The distances of each recording, as JSON lines.")
    return parser


def _named(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not separator or not Path(folder).is_dir():
        raise SystemExit(f"{text}: expected NAME=FOLDER, with a folder that exists")
    return name, Path(folder)


def excerpts(folder: Path, config: MelConfig, seconds: float | None = None, most: int | None = None) -> list[Excerpt]:
    """The beginnings of the recordings of a folder and its subfolders, sorted by path; without silent ones."""
    paths = [source.path for source in find_sources([str(folder)], [AUDIO]).sources]
    if most is not None and len(paths) > most:
        paths = [paths[round(index)] for index in np.linspace(0, len(paths) - 1, most)]
    length = None if seconds is None else round(seconds * config.sample_rate)
    waves = [Excerpt(path, read_mono(path, config)[:length]) for path in paths]
    return [each for each in waves if len(each.wave) and np.abs(each.wave).max() >= SILENCE]


def exported(home: Path, options: argparse.Namespace, stack: ExitStack) -> dict[str, Vocoder]:
    """Each model with each of its chains, by the name of its row; closed by the stack."""
    found = {}
    for kind in ("gan", "diffusion"):
        checkpoint = getattr(options, kind)
        if str(checkpoint) == "none":
            continue
        console.say(f"exporting {checkpoint}")
        done = run(
            "gomin-export", kind, "--ckpt", checkpoint, "--target", options.target, "--repository", home / "models"
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        chains: Mapping[str, str | None] = CHAINS if kind == "diffusion" else {"": None}
        for chain, sampler in chains.items():
            vocoder = Vocoder(f"local:{home / 'models'}", kind, sampler=sampler)
            found[f"{kind}, {chain}".removesuffix(", ")] = stack.enter_context(vocoder)
    return found


def common_settings(vocoders: Mapping[str, Vocoder]) -> MelConfig:
    """The mel settings that all models have; GOMIN's if there is no model.

    Raises:
        ContractError: they differ.
    """
    config = next((each.contract.mel for each in vocoders.values()), MelConfig())
    for each in vocoders.values():
        each.contract.check_mel(each.model, config)
    return config


def _reconstruction(vocoder: Vocoder) -> Callable[[Wave], Wave]:
    seed = SEED if vocoder.takes_seed else None
    return lambda wave: vocoder.reconstruct(wave, vocoder.contract.mel.sample_rate, seed=seed, force=True)


def _griffin_lim(config: MelConfig) -> dict[str, Callable[[Wave], Wave]]:
    name = f"Griffin-Lim, {ITERATIONS} iterations"
    return {name: lambda wave: griffin_lim(mel_spectrogram(wave, config), config, len(wave), ITERATIONS)}


def measured(
    system: str,
    make: Callable[[Wave], Wave],
    recordings: Sequence[Excerpt],
    config: MelConfig,
    results: list[dict[str, object]],
) -> list[Distance]:
    """The distance of each reconstruction; also added to the results."""
    found = []
    for number, each in enumerate(recordings, 1):
        console.say(f"{system}: {number} of {len(recordings)}, {each.path}")
        found.append(distance(each.wave, make(each.wave), config))
        results.append({"system": system, "recording": str(each.path), **found[-1].to_dict()})
    return found


def table(
    title: str, recordings: Sequence[Excerpt], found: Mapping[str, Sequence[Distance]], config: MelConfig
) -> Iterator[str]:
    """The lines of a Markdown table: means over the recordings."""
    seconds = sum(len(each.wave) for each in recordings) / config.sample_rate
    yield f"**{title}** ({len(recordings)} recordings, {seconds:.0f} s)\n"
    yield "| | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for system, distances in found.items():
        values = (np.mean([column(each) for each in distances]) for column in COLUMNS.values())
        yield f"| {system} | " + " | ".join(f"{value:.2f}" for value in values) + " |"
    yield ""


if __name__ == "__main__":
    try:
        console.run(main)
    except GominError as error:
        sys.exit(str(error))
