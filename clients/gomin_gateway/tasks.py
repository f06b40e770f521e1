"""The tasks on an uploaded file, as generators that run in threads: first the headers of the answer, then bytes.

They are made of the parts that `gomin_client.batch.tasks` is made of, so the audio is that of `gomin-client`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gomin_client.files import audio, streams
from gomin_client.files import mels as mel_files
from gomin_client.files.numpy_files import NpzFile
from gomin_client.inference.checks import MOST_CHANNELS
from gomin_client.inference.pinned import fresh_seed
from gomin_client.mel.features import Wave, mel_blocks
from gomin_client.mel.resampling import resample_blocks
from gomin_client.vocoder import Vocoder
from gomin_gateway.backend import Backend
from gomin_gateway.negotiation import BINARY, Representation
from gomin_gateway.parameters import (
    AnalyzeParameters,
    ChainParameters,
    ReconstructParameters,
    ResampleParameters,
    SynthesizeParameters,
)
from gomin_gateway.problems import GoneError, ProblemError

UPLOAD = "upload"  # name of the file in the job's directory
SENT = 1 << 17  # bytes of a file that are sent at a time
_FEW_CHANNELS = 8  # of recordings that are read in blocks of the usual size

Block = TypeVar("Block")


@dataclass(frozen=True)
class Head:
    """What precedes the bytes of an answer.

    Attributes:
        media_type: the content type.
        headers: others.
        length: number of bytes; None if it is not known yet.
    """

    media_type: str
    headers: dict[str, str]
    length: int | None = None


@dataclass
class Job:
    """One request.

    Attributes:
        directory: of its own; contains the upload.
        backend: the models.
        longest_s: maximum duration of the audio, in seconds, all channels together.
        ended: set when nobody waits for the answer any more.
        seconds: duration of the audio so far.
        model: name and version of the model, once it is known.
    """

    directory: Path
    backend: Backend
    longest_s: float
    ended: threading.Event = field(default_factory=threading.Event)
    seconds: float = 0.0
    model: str = ""

    @property
    def source(self) -> Path:
        """The uploaded file."""
        return self.directory / UPLOAD

    def open(self, parameters: ChainParameters, window: int | None = None) -> Vocoder:
        """The model that makes audio; it sends no more requests once the job has ended."""
        opened = self.backend.open(parameters.model, parameters.version, parameters.sampling(), window)
        self.model = f"{opened.model} {opened.version}"
        return opened.until(self.ended)

    def until_ended(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks, until nobody waits for the answer any more.

        Raises:
            GoneError: nobody does.
        """
        for block in blocks:
            if self.ended.is_set():
                raise GoneError
            yield block

    def channels(self, reader: audio.AudioReader, channels: str, *, force: bool) -> Iterator[Wave]:
        """The blocks of a recording, (channels, samples) each, mixed down unless `channels` is "all".

        Raises:
            ProblemError: it is too long; that is known when it has been decoded so far.
        """
        kept = reader.channels if channels == "all" else 1
        if kept > MOST_CHANNELS:
            raise ProblemError(
                "unsuitable-input", f"the recording has {kept} channels; at most {MOST_CHANNELS} are kept"
            )
        size = audio.BLOCK if reader.channels <= _FEW_CHANNELS else audio.BLOCK * _FEW_CHANNELS // reader.channels
        for block in self.until_ended(reader.blocks(size)):
            self.count(block.shape[-1] * kept / reader.rate)
            (checked,) = [block] if force else audio.moderate([block])
            yield checked if channels == "all" else audio.mix(checked)

    def count(self, seconds: float) -> None:
        """Add to the duration of the audio.

        Raises:
            ProblemError: it is too long.
        """
        self.seconds += seconds
        if self.seconds > self.longest_s:
            raise ProblemError(
                "too-long", f"the audio is longer than {self.longest_s:g} s, the longest that this gateway takes"
            )


def reconstruct(job: Job, parameters: ReconstructParameters, form: Representation) -> Iterator[Head | bytes]:
    """A recording → mel → audio.

    Yields:
        The head, then the bytes of the answer.

    Raises:
        GominError, ProblemError: see `Vocoder` and `Job.channels`.
    """
    with job.open(parameters, parameters.window) as vocoder, audio.AudioReader(job.source) as reader:
        seed = seed_for(vocoder, parameters.seed)
        waves = vocoder.reconstruct_stream(
            job.channels(reader, parameters.channels, force=parameters.force),
            reader.rate,
            trim=parameters.trim,
            seed=seed,
            first_window=vocoder.first_window if form.streamed else None,
            force=True,
        )
        yield from _audio(job, vocoder, waves, seed, form, lambda: reader.warning)


def synthesize(job: Job, parameters: SynthesizeParameters, form: Representation) -> Iterator[Head | bytes]:
    """A mel file → audio; see `reconstruct`."""
    reading = parameters.reading(transpose=parameters.transpose)
    with job.open(parameters, parameters.window) as vocoder:
        config = vocoder.contract.mel
        seed = seed_for(vocoder, parameters.seed)
        loaded = mel_file(job, vocoder, transpose=parameters.transpose)
        vocoder.check_mels(job.until_ended(loaded.converted(reading, config)), force=parameters.force)
        waves = vocoder.stream(
            job.until_ended(loaded.converted(reading, config)),
            seed,
            first_window=vocoder.first_window if form.streamed else None,
            force=True,
        )
        yield from _audio(job, vocoder, waves, seed, form, lambda: "")


def analyze(job: Job, parameters: AnalyzeParameters) -> Iterator[Head | bytes]:
    """A recording → mel file, with the settings of the model; see `reconstruct`."""
    with job.backend.open(parameters.model, parameters.version) as vocoder:
        job.model = f"{vocoder.model} {vocoder.version}"
        config = vocoder.contract.mel
    target = job.directory / f"mel.{parameters.format}"
    with audio.AudioReader(job.source) as reader:
        channels = job.channels(reader, parameters.channels, force=parameters.force)
        resampled = resample_blocks(channels, reader.rate, config.sample_rate)
        mel_files.write_blocks(target, job.until_ended(mel_blocks(resampled, config)), config)
        headers = {"Gomin-Model": job.model, **warning_header(job, reader.warning)}
    yield from _file(target, BINARY, headers)


def resample(job: Job, parameters: ResampleParameters, form: Representation) -> Iterator[Head | bytes]:
    """A recording → audio at the sample rate of the model, of which `analyze` makes the mel; see `reconstruct`."""
    with job.backend.open(parameters.model, parameters.version) as vocoder:
        job.model = f"{vocoder.model} {vocoder.version}"
        rate = vocoder.sample_rate
    with audio.AudioReader(job.source) as reader:
        channels = job.channels(reader, parameters.channels, force=parameters.force)
        waves = resample_blocks(channels, reader.rate, rate)
        yield from _encoded(job, job.until_ended(waves), rate, form, {}, lambda: reader.warning)


def _audio(
    job: Job,
    vocoder: Vocoder,
    waves: Iterator[Wave],
    seed: int | None,
    form: Representation,
    warning: Callable[[], str],
) -> Iterator[Head | bytes]:
    """The head and the bytes of audio that a model makes."""
    headers = chain_headers(vocoder, seed)
    yield from _encoded(job, job.until_ended(waves), vocoder.sample_rate, form, headers, warning, vocoder.comment(seed))


def chain_headers(vocoder: Vocoder, seed: int | None) -> dict[str, str]:
    """The headers about the chain and its noise; none for a model without a chain."""
    headers = {}
    if seed is not None:
        headers["Gomin-Seed"] = str(seed)
    if vocoder.sampling is not None:
        chain = vocoder.sampling.to_parameters()
        headers["Gomin-Sampling"] = ", ".join(f"{name}={value}" for name, value in chain.items())
    return headers


def _encoded(
    job: Job,
    waves: Iterator[Wave],
    rate: int,
    form: Representation,
    headers: dict[str, str],
    warning: Callable[[], str],
    comment: str = "",
) -> Iterator[Head | bytes]:
    """The head and the bytes of audio, (channels, samples) a block."""
    headers = {"Gomin-Model": job.model, **headers}
    if form.streamed:
        encoded = streams.encode(waves, rate, form.format.extension, form.subtype)
        first = next(encoded)
        yield Head(form.media_type, headers)
        yield first
        yield from encoded
        return
    target = job.directory / f"audio{form.format.extension}"
    audio.write_blocks(target, waves, rate, form.subtype, comment)
    yield from _file(target, form.media_type, headers | warning_header(job, warning()))


def _file(path: Path, media_type: str, headers: dict[str, str]) -> Iterator[Head | bytes]:
    with path.open("rb") as file:
        yield Head(media_type, headers, path.stat().st_size)
        while block := file.read(SENT):
            yield block


def warning_header(job: Job, warning: str) -> dict[str, str]:
    """The header about a defect of the upload, if it has one."""
    shown = warning.replace(str(job.source), "the recording").replace(":", "", 1)
    return {"Gomin-Warning": shown} if warning else {}


def seed_for(vocoder: Vocoder, given: int | None) -> int | None:
    """The seed for a model that takes one: the answer names it."""
    if given is not None:
        vocoder.check_seed(given)
    return fresh_seed() if given is None and vocoder.takes_seed else given


def mel_file(job: Job, vocoder: Vocoder, *, transpose: bool) -> mel_files.MelFile:
    """The uploaded mel, which counts as so much audio.

    Raises:
        ProblemError: it is not a numpy file, or is longer, or has more channels, than is taken.
        ContractError: it was made with other settings than the model's.
        FileError: it is damaged.
    """
    config = vocoder.contract.mel
    with job.source.open("rb") as file:
        extension = streams.numpy_extension(file.read(8))
    if not extension:
        raise ProblemError("unreadable-file", "the body is not a mel: expected a numpy file, .npy or .npz")
    # float64 of as many frames as are taken, and headers
    most = int(8 * config.n_mels * job.longest_s * config.sample_rate / config.hop_length) + (1 << 16)
    if extension == ".npz":
        with NpzFile(job.source) as archive:
            if archive.largest > most:
                raise ProblemError("too-long", f"the arrays of the .npz file exceed {job.longest_s:g} s of audio")
    loaded = mel_files.read(job.source.rename(job.source.with_suffix(extension)), transpose=transpose)
    if loaded.config is not None:
        vocoder.contract.check_mel(vocoder.model, loaded.config)
    items, _, frames = loaded.mel.shape
    if items > MOST_CHANNELS:
        raise ProblemError("unsuitable-input", f"the mel has {items} channels; at most {MOST_CHANNELS} are taken")
    job.count(items * frames * config.hop_length / config.sample_rate)
    return loaded
