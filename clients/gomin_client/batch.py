"""Many files through one vocoder: a bad file is reported and does not stop the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gomin_client import audio, plot
from gomin_client.errors import GominError, ServerError
from gomin_client.vocoder import Vocoder

Say = Callable[[str], None]


@dataclass
class Report:
    """What became of the files.

    Attributes:
        done: files written.
        failures: what stopped the others, in order.
        comparisons: mels of originals and reconstructions, where they were asked for.
    """

    done: int = 0
    failures: list[GominError] = field(default_factory=list)
    comparisons: list[plot.Comparison] = field(default_factory=list)


def reconstruct_files(
    vocoder: Vocoder,
    jobs: Sequence[tuple[Path, Path]],
    *,
    trim: bool,
    seed: int | None,
    keep_mels: bool,
    say: Say,
    complain: Say,
) -> Report:
    """Reconstruct one file after the other.

    Args:
        vocoder: the model.
        jobs: (input, output) pairs.
        trim: see `Vocoder.reconstruct`.
        seed: see `Vocoder.synthesize`.
        keep_mels: collect `Report.comparisons`.
        say: called with a line for each file written.
        complain: called with a line for each file that failed.

    Raises:
        ServerError: the server went away; nothing more can be done.
    """
    report = Report()
    for source, target in jobs:
        try:
            started = time.perf_counter()
            wave, rate = audio.read(source)
            wave = audio.resample(wave, rate, vocoder.sample_rate)
            result = vocoder.reconstruct(wave, vocoder.sample_rate, trim=trim, seed=seed)
            audio.write(target, result, vocoder.sample_rate)
        except ServerError:
            if len(jobs) > 1:
                complain(f"stopped at {source}: {report.done} done, {len(report.failures)} failed, the rest not tried")
            raise
        except GominError as error:
            message = str(error)
            complain(message if str(source) in message or str(target) in message else f"{source}: {message}")
            report.failures.append(error)
            continue
        report.done += 1
        elapsed = time.perf_counter() - started
        seconds = len(wave) / vocoder.sample_rate
        say(f"{source} -> {target}  {seconds:.2f} s of audio in {elapsed:.2f} s")
        if keep_mels:
            report.comparisons.append(plot.compare(source.stem, wave, result, vocoder.contract.mel))
    return report
