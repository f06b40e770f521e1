"""How near to the recordings vocoders come: python -m benchmarks.quality [NAME=RECORDINGS …].

Every recording becomes a mel, and every vocoder makes audio of it: the GAN, the diffusion model with its full and its
fast chain, and Griffin-Lim. Prints a Markdown table of the means for each set of recordings. Noise and first phases
have fixed seeds: on one machine, a second run prints the same figures.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.console import run, say
from benchmarks.griffin_lim import ITERATIONS, griffin_lim
from gomin_client import Vocoder
from gomin_client.cli.console import exit_status
from gomin_client.errors import UsageError
from gomin_client.files.atomic import atomic_write
from gomin_client.mel.features import MelConfig, Wave, mel_spectrogram
from gomin_client.native.library import find_library
from gomin_client.tools.calibration import Recording, find_recordings
from gomin_client.tools.compare import Distance, distance, read_mono
from gomin_export.choices import NATIVE, TARGETS
from gomin_export.parity.librosa_loading import load_librosa
from tests.support import BIN, ROOT

GAN, DIFFUSION = "gan", "diffusion"
MODELS = (GAN, DIFFUSION)
DEMO_CHECKPOINTS = {model: ROOT / "checkpoints" / f"demo_{model}.pt" for model in MODELS}
CHAINS = ("ddpm", "fast")
SEED = 0
SILENCE = 1e-4  # a recording that is not louder has nothing to compare

LOWEST_HZ, HIGHEST_HZ = 50.0, 550.0  # the range of pitch in Morrison et al. 2022, Chunked autoregressive GAN
_PITCH_FRAME = 2048  # samples

# (samples,) -> (samples,), at the sample rate of the mel settings
Reconstruct = Callable[[Wave], Wave]


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a recording.

    Attributes:
        path: the recording's.
        wave: (samples,) mono, at the sample rate of the mel settings.
    """

    path: Path
    wave: Wave


@dataclass(frozen=True)
class Pitch:
    """The pitch of a result beside that of its recording, frame by frame.

    Attributes:
        both: number of frames that are voiced in both.
        one: number of frames that are voiced in one of the two.
        errors: (both,) distances of the two pitches, in cents.
    """

    both: int
    one: int
    errors: NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One vocoder on one recording.

    Attributes:
        path: the recording's.
        distance: see `compare.Distance`.
        pitch: see `Pitch`.
    """

    path: Path
    distance: Distance
    pitch: Pitch

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        voiced = {"voiced_in_both": self.pitch.both, "voiced_in_one": self.pitch.one}
        cents = float(np.median(self.pitch.errors)) if self.pitch.both else None
        return {"recording": str(self.path), **self.distance.to_dict(), **voiced, "pitch_error_cents": cents}


def pitch(wave: Wave, config: MelConfig) -> NDArray[np.float64]:
    """The pitch in Hz of each frame, by pYIN (Mauch & Dixon 2014); NaN where there is none: (frames,)."""
    found, _, _ = load_librosa().pyin(
        wave.astype(np.float64),
        fmin=LOWEST_HZ,
        fmax=HIGHEST_HZ,
        sr=config.sample_rate,
        frame_length=_PITCH_FRAME,
        hop_length=config.hop_length,
    )
    return np.asarray(found, np.float64)


def compare_pitch(reference: NDArray[np.float64], other: NDArray[np.float64]) -> Pitch:
    """Compare two pitches, as `pitch` finds them, of as many frames."""
    voiced = ~np.isnan(reference), ~np.isnan(other)
    both = voiced[0] & voiced[1]
    errors = np.abs(1200 * np.log2(other[both] / reference[both]))
    return Pitch(int(both.sum()), int((voiced[0] ^ voiced[1]).sum()), errors)


def excerpts(
    recordings: Sequence[Recording], config: MelConfig, seconds: float | None = None, most: int | None = None
) -> list[Excerpt]:
    """The beginnings of recordings, mixed down to mono; without those that are silent.

    Args:
        recordings: what is read.
        config: mel settings, of which the sample rate is used.
        seconds: how much of each; None for all of it.
        most: how many of the recordings, evenly spaced; None for all of them.

    Raises:
        FileError: a recording cannot be read.
    """
    if most is not None and most < len(recordings):
        recordings = [recordings[round(index)] for index in np.linspace(0, len(recordings) - 1, most)]
    length = None if seconds is None else math.ceil(seconds * config.sample_rate)
    read = [Excerpt(recording.path, read_mono(recording.path, config)[:length]) for recording in recordings]
    return [excerpt for excerpt in read if np.abs(excerpt.wave).max(initial=0) > SILENCE]


def measure(
    recordings: Sequence[Excerpt],
    vocoders: dict[str, Reconstruct],
    config: MelConfig,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, list[Measured]]:
    """Reconstruct every recording with every vocoder, and compare the results with it.

    Args:
        recordings: what is reconstructed.
        vocoders: by name.
        config: the vocoders' mel settings.
        say: called with a line for each recording.

    Returns:
        Vocoder → what was measured on each recording.

    Raises:
        GominError: a model does not answer.
    """
    results: dict[str, list[Measured]] = {name: [] for name in vocoders}
    for number, recording in enumerate(recordings, 1):
        say(f"{number} of {len(recordings)}: {recording.path}")
        reference = pitch(recording.wave, config)
        for name, reconstruct in vocoders.items():
            made = reconstruct(recording.wave)
            found = compare_pitch(reference, pitch(made, config))
            results[name].append(Measured(recording.path, distance(recording.wave, made, config), found))
    return results


def table(results: dict[str, list[Measured]]) -> str:
    """Markdown: for each vocoder the means of its distances, weighted by duration, and its pitch over all frames."""
    rows = [
        "| | mel L1, dB | spectral convergence | log magnitude L1 | V/UV F1 | pitch error, cents |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*rows, *(f"| {name} | {_row(measured)} |" for name, measured in results.items())])


def _row(measured: Sequence[Measured]) -> str:
    durations = [one.distance.seconds for one in measured]

    def mean(name: str) -> float:
        return float(np.average([getattr(one.distance, name) for one in measured], weights=durations))

    both, one = (sum(getattr(each.pitch, name) for each in measured) for name in ("both", "one"))
    f1 = f"{2 * both / (2 * both + one):.2f}" if both or one else "–"
    cents = f"{np.median(np.concatenate([each.pitch.errors for each in measured])):.0f}" if both else "–"
    distances = f"{mean('log_mel_l1_db'):.2f} | {mean('spectral_convergence'):.3f} | {mean('log_magnitude_l1'):.3f}"
    return f"{distances} | {f1} | {cents}"


def by_griffin_lim(config: MelConfig) -> Reconstruct:
    """Griffin-Lim on the mel of a waveform."""
    return lambda wave: griffin_lim(mel_spectrogram(wave, config), len(wave), config, seed=SEED)


def by_model(vocoder: Vocoder) -> Reconstruct:
    """A model."""
    rate = vocoder.contract.mel.sample_rate
    return lambda wave: vocoder.reconstruct(wave, rate, seed=SEED if vocoder.sampling is not None else None)


@contextmanager
def opened(url: str, models: Sequence[str]) -> Iterator[tuple[dict[str, Reconstruct], MelConfig]]:
    """The vocoders at a URL, and Griffin-Lim, by the names of the table's rows; and their mel settings.

    Args:
        url: see `Vocoder`.
        models: of `MODELS`, at least one.

    Raises:
        UsageError: a model is not there, or the models have different mel settings.
        GominError: see `Vocoder`.
    """
    with ExitStack() as stack:
        vocoders: dict[str, Vocoder] = {}
        for model in models:
            if model == GAN:
                vocoders["GAN"] = stack.enter_context(Vocoder(url, model))
                continue
            for sampler in CHAINS:
                vocoder = stack.enter_context(Vocoder(url, model, sampler=sampler))
                steps = vocoder.sampling.steps if vocoder.sampling is not None else None
                vocoders[f"diffusion, {sampler}, {steps} steps"] = vocoder
        settings = {vocoder.contract.mel for vocoder in vocoders.values()}
        if len(settings) > 1:
            raise UsageError(
                f"the models at {url} have different mel settings: measure them one by one, with --models, or with one "
                "checkpoint at a time"
            )
        (config,) = settings
        reconstructs = {name: by_model(vocoder) for name, vocoder in vocoders.items()}
        yield {**reconstructs, f"Griffin-Lim, {ITERATIONS} iterations": by_griffin_lim(config)}, config


def export(checkpoints: dict[str, Path], repository: Path, target: str) -> None:
    """Export checkpoints, by model, into a repository; an error of gomin-export ends the program."""
    for model, path in checkpoints.items():
        say(f"exporting {path}")
        options = ["--ckpt", str(path), "--repository", str(repository), "--target", target]
        exported = subprocess.run([BIN / "gomin-export", model, *options], capture_output=True, text=True, check=False)
        if exported.returncode:
            raise SystemExit(exported.stderr)


def named_sets(arguments: Sequence[str]) -> dict[str, list[Recording]]:
    """The recordings of each set.

    Args:
        arguments: NAME=PATH, or a path, which is then the name too. A path is a file, a folder or a pattern. Several
            paths of one name are one set.

    Raises:
        GominError: see `find_recordings`.
    """
    paths: dict[str, list[str]] = {}
    for argument in arguments:
        name, separator, path = argument.partition("=")
        is_named = bool(separator) and not Path(argument).exists()
        paths.setdefault(name if is_named else argument, []).append(path if is_named else argument)
    return {name: find_recordings(each) for name, each in paths.items()}


def command_line() -> argparse.ArgumentParser:
    """The parser of the command line."""
    default = NATIVE if find_library() is not None else TARGETS[0]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description="Measure how near vocoders come to recordings."
    )
    parser.add_argument(
        "sets",
        nargs="*",
        metavar="NAME=PATH",
        default=[f"examples={ROOT / 'examples'}"],
        help="recordings: a file, folder or pattern; one table for each name. Default: the examples",
    )
    parser.add_argument("--gan-ckpt", type=Path, help="measure this GAN; without checkpoints and --url, the demo's two")
    parser.add_argument("--diffusion-ckpt", type=Path, help="measure this diffusion model")
    parser.add_argument("--target", choices=TARGETS, default=default, help=f"of the exports; default {default}")
    parser.add_argument("--url", help="measure the models there: grpc://HOST:PORT, or local:DIRECTORY of a repository")
    parser.add_argument("--models", help="which models of --url, with a comma between them; default gan,diffusion")
    parser.add_argument("--seconds", type=float, help="only the first seconds of each recording")
    parser.add_argument("--most", type=int, help="only so many recordings of each set, evenly spaced")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured on each recording to FILE")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print.

    Raises:
        SystemExit: an error, which has been printed.
    """
    parser = command_line()
    asked = parser.parse_args(arguments)
    given = {GAN: asked.gan_ckpt, DIFFUSION: asked.diffusion_ckpt}
    checkpoints = {model: path for model, path in given.items() if path is not None}
    models = (asked.models or ",".join(MODELS)).split(",")
    if asked.url and checkpoints:
        parser.error("--url has models of its own: give either it or checkpoints")
    if asked.models and not asked.url:
        parser.error("--models are those of --url: give it too, or choose by --gan-ckpt and --diffusion-ckpt")
    if not set(models) <= set(MODELS):
        parser.error(f"--models {asked.models}: expected {' or '.join(MODELS)}, with a comma between them")
    for name in ("seconds", "most"):
        value = getattr(asked, name)
        if value is not None and not value > 0:
            parser.error(f"--{name} {value:g}: expected more than 0")
    with exit_status("benchmarks.quality", lambda: "the tables so far are complete"):
        sets = named_sets(asked.sets)
        with tempfile.TemporaryDirectory() as home:
            if asked.url is None:
                checkpoints = checkpoints or DEMO_CHECKPOINTS
                export(checkpoints, Path(home), asked.target)
            with opened(asked.url or f"local:{home}", models if asked.url else list(checkpoints)) as found:
                results = {name: _measure_set(name, each, *found, asked) for name, each in sets.items()}
        if asked.json is not None:
            facts = {
                name: {vocoder: [one.to_dict() for one in measured] for vocoder, measured in each.items()}
                for name, each in results.items()
            }
            with atomic_write(asked.json) as part:
                part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _measure_set(
    name: str,
    recordings: Sequence[Recording],
    vocoders: dict[str, Reconstruct],
    config: MelConfig,
    asked: argparse.Namespace,
) -> dict[str, list[Measured]]:
    """Measure a set of recordings, and print its table."""
    read = excerpts(recordings, config, asked.seconds, asked.most)
    if not read:
        raise UsageError(f"{name}: contains only silence")
    measured = measure(read, vocoders, config, say)
    seconds = sum(len(excerpt.wave) for excerpt in read) / config.sample_rate
    count = f"{len(read)} {'recording' if len(read) == 1 else 'recordings'}"
    print(f"**{name}** ({count}, {seconds:.1f} s)\n\n{table(measured)}\n", flush=True)
    return measured


if __name__ == "__main__":
    run(main)
