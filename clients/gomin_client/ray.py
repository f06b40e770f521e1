"""Callable classes for Ray Data: `map_batches` runs them in a pool of actors, each with a model or a connection.

    recordings = ray.data.read_binary_files("recordings", include_paths=True)
    options = {"url": "grpc://triton:8001", "model": "gan"}
    made = recordings.map_batches(Reconstructor, fn_constructor_kwargs=options, compute=ActorPoolStrategy(size=4))

A batch is a dict from the names of columns to arrays, Ray's default format. Each row is processed as `gomin-client`
processes a file, by the same functions. All columns are kept, and three are added or replaced: the result, `error` and
`warning`. A row that fails does not stop the others: its result is empty, and `error` says why. `warning` says what is
odd about a recording that was used. A server that cannot be reached, or is not ready, and a full disk are errors of the
whole batch.

If an actor dies, Ray processes its batch again. A row has no other effect than its result, or a file that is complete
or absent, so that nothing is lost and nothing is doubled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from gomin_client import DEFAULT_URL
from gomin_client.batch.outputs import ANALYZE, RECONSTRUCT, SYNTHESIZE, FileJob
from gomin_client.batch.rows import ERROR, WARNING, Columns, refuse_faults, source_of, target_of
from gomin_client.batch.run import Outcome, run_jobs
from gomin_client.batch.tasks import BatchSettings
from gomin_client.errors import FileError, UsageError
from gomin_client.files import audio, formats
from gomin_client.files.atomic import temporary_directory, temporary_file_errors
from gomin_client.inference.steps import SteppedModel
from gomin_client.mel.features import MelConfig
from gomin_client.mel.scales import MelReading
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.transports.connection import Connection
from gomin_client.vocoder import Vocoder

if find_spec("ray") is None or find_spec("pyarrow") is None:
    raise ModuleNotFoundError("gomin_client.ray needs the packages ray and pyarrow: pip install 'gomin-triton[ray]'")

_OF_MODEL = ("version", "connection", "window", "sampling")  # options of `Vocoder`; the others are of `BatchSettings`

Rows = Mapping[str, NDArray[Any]]  # a batch: column → one value for each row


class FileOptions(TypedDict, total=False):
    """How files are read and written.

    Attributes:
        all_channels: keep every channel; otherwise they are mixed down to one, as on the command line.
        force: take audio and mels whose values look wrong.
        subtype: encoding of audio, such as "24" or "float" for .wav; the format's default if left out.
        parallel: number of rows of a batch that are processed at the same time; 1 if left out.
    """

    all_channels: bool
    force: bool
    subtype: str | None
    parallel: int


class ModelOptions(FileOptions, total=False):
    """How a model is called; see `Vocoder` for what is not described here.

    Attributes:
        seed: of a diffusion model's noise, of all rows; necessary for such a model.
        version: of the model. Actors start at different times; without it each takes the newest version at its start.
    """

    seed: int | None
    version: int | None
    connection: Connection | None
    window: int | None
    sampling: SamplerSettings | None


class ReconstructorOptions(ModelOptions, total=False):
    """Attributes: trim: see `Vocoder.reconstruct`."""

    trim: bool


class SynthesizerOptions(ModelOptions, total=False):
    """Attributes: reading: the scale and the axes of the mels; GOMIN's own if left out."""

    reading: MelReading


class _Processor:
    """What the three classes share: rows become the jobs of a small batch of files."""

    _vocoder: SteppedModel | None = None
    _config = MelConfig()

    def __init__(self, task: str, columns: Columns, settings: BatchSettings) -> None:
        if not isinstance(settings.parallel, int) or settings.parallel < 1:
            raise UsageError(f"parallel {settings.parallel!r}: expected a whole number, 1 or more")
        kind = formats.MEL if task == ANALYZE else formats.AUDIO
        columns.check(kind, settings.subtype)
        self._task, self._columns, self._extension, self._settings = task, columns, columns.extension, settings
        if columns.extension is None:  # arrays: the formats that keep float32 as it is
            self._extension = ".npy" if kind == formats.MEL else ".wav"
            self._settings = replace(settings, subtype=None if kind == formats.MEL else "float")

    def _open(self, url: str | list[str], model: str, options: Mapping[str, Any]) -> None:
        """Connect to the model, or open its repository."""
        vocoder = Vocoder(url, model, **{name: value for name, value in options.items() if name in _OF_MODEL})
        try:
            if self._settings.seed is not None:
                vocoder.check_seed(self._settings.seed)
            elif vocoder.takes_seed:
                raise UsageError(f"model {vocoder.model} draws noise: give a seed; a batch may be processed twice")
        except UsageError:
            vocoder.close()
            raise
        self._vocoder, self._config = vocoder, vocoder.contract.mel

    def __call__(self, batch: Rows) -> dict[str, Any]:
        """Process a batch.

        Args:
            batch: column → array with a value for each row.

        Returns:
            All its columns, the result, `error` and `warning`.

        Raises:
            UsageError: the batch has another format, or a column is missing.
            ServerError, FileError: see `rows.refuse_faults`.
        """
        sources = self._column(batch, self._columns.column)
        targets = None if self._columns.target is None else self._column(batch, self._columns.target)
        results, errors, warnings = (np.full(len(sources), "", object) for _ in range(3))
        with temporary_directory() as folder:
            jobs: dict[int, FileJob] = {}
            with temporary_file_errors():
                for row, value in enumerate(sources):
                    try:
                        target = folder / f"{row}-made{self._extension}" if targets is None else target_of(targets[row])
                        source = source_of(value, self._columns.column, self._task, folder / f"{row}-given")
                        jobs[row] = FileJob(source, target, self._task)
                    except FileError as error:
                        results[row], errors[row] = self._nothing(), str(error)
            outcomes = run_jobs(list(jobs.values()), self._vocoder, self._config, self._settings)
            refuse_faults(outcomes, folder)
            for row, outcome in zip(jobs, outcomes, strict=True):
                results[row], errors[row] = self._finished(outcome, folder)
                warnings[row] = self._named(outcome.warning, outcome, folder)
        added = {} if targets is not None else {self._columns.result: results}
        return {**batch, **added, ERROR: errors, WARNING: warnings}

    def _column(self, batch: Rows, name: str) -> NDArray[Any]:
        if not isinstance(batch, Mapping):
            raise UsageError(f"a batch is a {type(batch).__name__}: expected a dict; leave out `batch_format`")
        if name in batch:
            return batch[name]
        raise UsageError(f"there is no column {name!r}; there are {', '.join(map(repr, batch))}")

    def _finished(self, outcome: Outcome, folder: Path) -> tuple[Any, str]:
        """Result and error of a row."""
        if outcome.error is None:
            try:
                return self._result(outcome.job.target), ""
            except FileError as error:
                return self._nothing(), str(error)
        return self._nothing(), self._named(outcome.reason, outcome, folder)

    def _named(self, message: str, outcome: Outcome, folder: Path) -> str:
        """A message with the names of columns instead of temporary files."""
        for path, name in ((outcome.job.source, self._columns.column), (outcome.job.target, self._columns.result)):
            message = message.replace(str(path), name) if path.parent == folder else message
        return message

    def _result(self, made: Path) -> Any:
        """What becomes of a file that was made.

        Raises:
            FileError: audio of several channels, where a single one was expected.
        """
        if self._columns.target is not None:
            return None
        if self._columns.extension is not None:
            return made.read_bytes()
        if self._task == ANALYZE:
            mel = np.load(made)  # a single channel has no axis of its own there
            return mel[np.newaxis] if self._settings.all_channels and mel.ndim == 2 else mel
        samples = audio.read(made).samples
        if len(samples) > 1 and not self._settings.all_channels:
            raise FileError(f"{self._columns.column}: has {len(samples)} channels; choose `all_channels`")
        return samples if self._settings.all_channels else samples[0]

    def _nothing(self) -> Any:
        """The result of a row that failed, of the type of all others: the blocks of a data set have one schema."""
        if self._columns.extension is not None:
            return b""
        axes = 1 + self._settings.all_channels + (self._task == ANALYZE)
        return np.zeros((0,) * axes, np.float32)


class Analyzer(_Processor):
    """Audio → mel, as `gomin-client analyze`."""

    def __init__(
        self,
        *,
        column: str = "bytes",
        result: str = "mel",
        target: str | None = None,
        extension: str | None = ".npz",
        config: MelConfig | None = None,
        **options: Unpack[FileOptions],
    ) -> None:
        """It needs neither a model nor a server.

        Args:
            column: the recordings: the bytes of a file, the path of a file that all nodes have, or a dict with "bytes"
                or "path", as in data sets of Hugging Face.
            result: the column for the mels.
            target: a column of paths to write the mels to, each with the extension of its format. They must differ.
            extension: format of the mels in the column `result`, as bytes: ".npz", ".npy" or ".pt"; None for arrays,
                (n_mels, frames) float32, or (channels, n_mels, frames) with `all_channels`.
            config: settings of the mel; GOMIN's own if left out.
            options: see `FileOptions`.

        Raises:
            UsageError: options that make no sense.
        """
        super().__init__(ANALYZE, Columns(column, result, target, extension), _settings(FileOptions, options))
        self._config = config or MelConfig()


class Reconstructor(_Processor):
    """Audio → audio by way of its mel, as `gomin-client reconstruct`."""

    def __init__(
        self,
        url: str | list[str] = DEFAULT_URL,
        model: str = "gan",
        *,
        column: str = "bytes",
        result: str = "audio",
        target: str | None = None,
        extension: str | None = ".wav",
        **options: Unpack[ReconstructorOptions],
    ) -> None:
        """Connect to the server, or open the model repository.

        Args:
            url: see `Vocoder`. A model of local:DIRECTORY is loaded by every actor, and uses all cores unless it was
                exported with `--threads`; the directory must be on all nodes.
            model: see `Vocoder`.
            column: see `Analyzer`.
            result: the column for the audio.
            target: see `Analyzer`.
            extension: format of the audio in the column `result`, as bytes: ".wav", ".flac", ".ogg" or ".mp3"; None for
                arrays, (samples,) float32 at the model's rate, or (channels, samples) with `all_channels`.
            options: see `ReconstructorOptions`.

        Raises:
            UsageError: options that make no sense, or a diffusion model without a seed.
            ServerError, ContractError: see `Vocoder`.
        """
        columns = Columns(column, result, target, extension)
        super().__init__(RECONSTRUCT, columns, _settings(ReconstructorOptions, options))
        self._open(url, model, options)


class Synthesizer(_Processor):
    """Mel → audio, as `gomin-client synthesize`."""

    def __init__(
        self,
        url: str | list[str] = DEFAULT_URL,
        model: str = "gan",
        *,
        column: str = "mel",
        result: str = "audio",
        target: str | None = None,
        extension: str | None = ".wav",
        **options: Unpack[SynthesizerOptions],
    ) -> None:
        """Connect to the server, or open the model repository.

        Args:
            url: see `Reconstructor`.
            model: see `Vocoder`.
            column: the mels: arrays (n_mels, frames), the bytes of an .npz or .npy file, or the path of a file.
            result: see `Reconstructor`.
            target: see `Analyzer`.
            extension: see `Reconstructor`; arrays of mels with several channels need `all_channels`.
            options: see `SynthesizerOptions`.

        Raises:
            UsageError, ServerError, ContractError: see `Reconstructor`.
        """
        columns = Columns(column, result, target, extension)
        super().__init__(SYNTHESIZE, columns, _settings(SynthesizerOptions, options))
        self._open(url, model, options)


def _settings(known: type, options: Mapping[str, Any]) -> BatchSettings:
    """The settings of files among the options of a class.

    Raises:
        UsageError: an option that it does not have.
    """
    names = sorted(known.__annotations__)
    for name in options:
        if name not in names:
            raise UsageError(f"option {name!r}: expected {', '.join(names)}")
    return BatchSettings(**{name: value for name, value in options.items() if name not in _OF_MODEL})
