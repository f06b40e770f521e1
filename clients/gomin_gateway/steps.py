"""The tasks that answer with each step of a diffusion model's chain: lines of JSON, sent as soon as a step is computed.

The audio of a line is what its step predicts for the end of the chain; that of the last line is the result. A caller
who goes away ends the chain at its next step.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from itertools import chain

import numpy as np

from gomin_client.errors import ContractError, UnknownModelError, UsageError
from gomin_client.files import audio
from gomin_client.inference.stream import Tally
from gomin_client.mel.features import MelBatch, mel_blocks
from gomin_client.mel.resampling import resample_blocks
from gomin_client.vocoder import Vocoder
from gomin_gateway.negotiation import JSON_LINES, Representation
from gomin_gateway.parameters import ReconstructStepsParameters, StepParameters, SynthesizeStepsParameters
from gomin_gateway.problems import SERVER, ProblemError, in_http
from gomin_gateway.tasks import SENT, Head, Job, chain_headers, mel_file, seed_for, warning_header


def reconstruct(job: Job, parameters: ReconstructStepsParameters, form: Representation) -> Iterator[Head | bytes]:
    """A recording → mel → the steps of a chain.

    Yields:
        The head, then a line for each step.

    Raises:
        GominError, ProblemError: see `Vocoder.synthesize_steps` and `Job.channels`.
    """
    with job.open(parameters) as vocoder, audio.AudioReader(job.source) as reader:
        _check_steps(vocoder)
        channels = job.channels(reader, parameters.channels, force=parameters.force)
        resampled = Tally(resample_blocks(channels, reader.rate, vocoder.sample_rate))
        mel = np.concatenate(list(job.until_ended(mel_blocks(resampled, vocoder.contract.mel))), axis=-1)
        samples = resampled.samples if parameters.trim else None
        yield from _steps(job, vocoder, mel, parameters, form, warning_header(job, reader.warning), samples)


def synthesize(job: Job, parameters: SynthesizeStepsParameters, form: Representation) -> Iterator[Head | bytes]:
    """A mel file → the steps of a chain; see `reconstruct`."""
    reading = parameters.reading(transpose=parameters.transpose)
    with job.open(parameters) as vocoder:
        _check_steps(vocoder)
        loaded = mel_file(job, vocoder, transpose=parameters.transpose)
        blocks = job.until_ended(loaded.converted(reading, vocoder.contract.mel))
        mel = np.concatenate(list(blocks), axis=-1)
        vocoder.check_mels([mel], force=parameters.force)
        yield from _steps(job, vocoder, mel, parameters, form, {}, None)


def _steps(
    job: Job,
    vocoder: Vocoder,
    mel: MelBatch,
    parameters: StepParameters,
    form: Representation,
    headers: dict[str, str],
    samples: int | None,
) -> Iterator[Head | bytes]:
    """The head and the lines; audio is cut to `samples`, if they are given."""
    seed = seed_for(vocoder, parameters.seed)
    head = Head(JSON_LINES, {"Gomin-Model": job.model, **chain_headers(vocoder, seed), **headers})
    with closing(vocoder.synthesize_steps(mel, seed, force=True)) as steps:
        first = next(steps)
        yield head
        target = job.directory / f"step{form.format.extension}"
        for step in chain([first], job.until_ended(steps)):
            wave = step.audio[..., :samples]
            comment = f"{vocoder.comment(seed)}, step {step.number} of {step.steps}"
            audio.write_blocks(target, [wave], vocoder.sample_rate, form.subtype, comment)
            encoded = base64.b64encode(target.read_bytes()).decode()
            line = {"step": step.number, "steps": step.steps, "timestep": step.timestep, "audio": encoded}
            content = json.dumps(line).encode() + b"\n"
            for at in range(0, len(content), SENT):
                yield content[at : at + SENT]


def _check_steps(vocoder: Vocoder) -> None:
    """Refuse a model whose steps cannot be sent.

    Raises:
        ProblemError: it has no chain, or the server has no model of its version that streams it.
    """
    try:
        vocoder.check_steps()
    except (UnknownModelError, ContractError, UsageError) as error:
        raise ProblemError("unsuitable-model", in_http(str(error).replace(vocoder.url, SERVER))) from error
