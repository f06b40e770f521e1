"""In-process: the models of a repository are run by ONNX Runtime here, on the CPU, without a server."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract import model as contract
from gomin_client.contract import repository as model_repository
from gomin_client.contract.model import ModelContract
from gomin_client.errors import (
    ContractError,
    DeadlineError,
    InferenceError,
    ServerError,
    UnknownModelError,
    UsageError,
)
from gomin_client.native.library import require_library
from gomin_client.sampling.base import Array
from gomin_client.sampling.jobs import DiffusionModel, SamplingJob, sample_jobs
from gomin_client.threads import start_thread
from gomin_client.transports.address import Address
from gomin_client.transports.base import (
    LONGEST_S,
    ModelInfo,
    Parameters,
    ServerInfo,
    Tensors,
    Transport,
    unknown_model,
)
from gomin_client.transports.connection import Connection
from gomin_client.transports.forking import ONNXRUNTIME, keep_forever, renew_in_children
from gomin_client.transports.sessions import Session, Sessions


def open_local(addresses: Sequence[Address], connection: Connection) -> Transport:
    """The transport of local:DIRECTORY."""
    (address,) = addresses
    connection.refuse_tls(address.url)
    connection.refuse_headers(address.url)
    return LocalTransport(address.place)


@dataclass(frozen=True)
class _Opened:
    """A model version that can be run.

    Attributes:
        described: its contract.
        session: of a network; None for a sampling chain, which calls the denoiser of the same version, and for an
            ensemble.
        chain: how to sample; None for other models.
        steps: of an ensemble; empty for other models.
    """

    described: ModelContract
    session: Session | None = None
    chain: DiffusionModel | None = None
    steps: tuple[model_repository.Step, ...] = ()


class LocalTransport(Transport):
    """A model repository on disk. `describe` reads it afresh; a model version that has been called stays as it was."""

    def __init__(self, repository: str | Path) -> None:
        """Args: repository: the directory.

        Raises:
            UsageError: ONNX Runtime is not installed.
        """
        if find_spec("onnxruntime") is None:  # before any work, and not at the first model that is run
            raise UsageError(
                f"local:{repository} needs the package onnxruntime: pip install 'gomin-triton[local]', or use a server"
            )
        self._repository = Path(repository)
        self._opened: dict[tuple[str, int], _Opened] = {}
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Begin without sessions and threads; see `Forkable`."""
        keep_forever(self._opened)  # the destructor of a session waits for its threads
        self._opened = {}
        self.__dict__.pop("_sessions", None)
        self._lock = threading.Lock()

    @property
    def repository(self) -> Path:
        """The directory."""
        return self._repository

    @property
    def url(self) -> str:
        """See `Transport.url`."""
        return f"local:{self._repository}"

    def server(self) -> ServerInfo:
        """See `Transport.server`."""
        with self._lock:
            return ServerInfo("onnxruntime", str(self._sessions.onnxruntime.__version__))

    @property
    def can_stream(self) -> bool:
        """See `Transport.can_stream`."""
        return True

    def models(self) -> list[str]:
        """See `Transport.models`."""
        if not self._repository.is_dir():
            raise ServerError(f"{self.url}: there is no directory {self._repository}; run gomin-export first")
        return model_repository.models(self._repository)

    def describe(self, model: str) -> ModelInfo:
        """See `Transport.describe`."""
        available = self.models()
        if model not in available:
            raise unknown_model(self.url, model, available)
        home = self._repository / model
        parameters, max_batch_size = model_repository.parse_config(home / model_repository.CONFIG)
        return ModelInfo(model, tuple(model_repository.versions(home)), parameters, max_batch_size)

    def prepare(self, model: str, version: int) -> None:
        """See `Transport.prepare`."""
        if self._open(model, version).chain is not None:
            self._open(contract.DENOISER_MODEL, version)

    def infer(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `Transport.infer`."""
        ends_at = time.monotonic() + timeout_s
        opened = self._open(model, version)
        if opened.described.kind == contract.DIFFUSION_STREAM:
            *_, last = self.infer_stream(model, version, inputs, timeout_s, parameters)
            return last
        with self._deadline(model, timeout_s):
            if opened.steps:
                return self._run_steps(opened, inputs, parameters or {}, ends_at)
            if opened.chain is not None:
                job = self._job(model, opened.chain, inputs, parameters or {})
                return {contract.AUDIO: self._sample(version, opened.chain, job, ends_at)}
            if parameters:
                raise ContractError(f"{self.url}: model {model} takes no request parameters, such as {min(parameters)}")
            self._check_frames(model, opened.described, inputs)
            return self._run(model, opened, inputs, ends_at)

    def infer_stream(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> Generator[dict[str, NDArray[Any]]]:
        """See `Transport.infer_stream`."""
        ends_at = time.monotonic() + timeout_s
        opened = self._open(model, version)
        if opened.chain is None or opened.described.kind != contract.DIFFUSION_STREAM:
            yield self.infer(model, version, inputs, timeout_s, parameters)
            return
        found: queue.SimpleQueue[tuple[int, Array] | BaseException] = queue.SimpleQueue()
        ended = threading.Event()
        job = replace(
            self._job(model, opened.chain, inputs, parameters or {}),
            is_cancelled=ended.is_set,
            on_step=lambda step, signal: found.put((step, signal)),
        )
        timesteps, chain = job.sampler.timesteps, opened.chain
        steps = len(timesteps)

        def run() -> None:
            try:
                self._sample(version, chain, job, ends_at)
            except BaseException as error:
                found.put(error)

        start_thread(run, "gomin-chain")
        step = 0
        try:
            while step < steps:
                with self._deadline(model, timeout_s):
                    answer = found.get()
                    if isinstance(answer, BaseException):
                        raise answer
                step, signal = answer
                shape = (len(signal), 1)
                yield {
                    contract.AUDIO: signal,
                    contract.STEP: np.full(shape, step, np.int32),
                    contract.STEPS: np.full(shape, steps, np.int32),
                    contract.TIMESTEP: np.full(shape, timesteps[step - 1], np.float32),
                }
        finally:
            ended.set()  # the thread ends after the step that it computes

    def close(self) -> None:
        """See `Transport.close`; runs in progress stop at their next operator."""
        if "_sessions" in self.__dict__:
            self._sessions.close()
        self._opened.clear()

    def _check_frames(self, model: str, described: ModelContract, inputs: Tensors) -> None:
        """Refuse a request of more frames than the model takes. ONNX Runtime itself refuses other numbers of axes."""
        mel, audio = inputs.get(contract.MEL), inputs.get(contract.AUDIO)
        frames = None
        if mel is not None and mel.ndim == 3:
            frames = (len(mel), mel.shape[-1])
        elif audio is not None and audio.ndim == 3:
            frames = (len(audio), described.mel.frames(audio.shape[-1]))
        if frames is not None:
            try:
                described.check_frames(model, *frames)
            except ContractError as error:
                raise ContractError(f"{self.url}: {error}") from error

    def _run_steps(
        self, opened: _Opened, inputs: Tensors, parameters: Parameters, ends_at: float
    ) -> dict[str, NDArray[Any]]:
        """The models of an ensemble, one after the other, each in its newest version; the last one gets the parameters.

        Triton gives the parameters to all of them, and a network ignores them there.
        """
        tensors = dict(inputs)
        for step in opened.steps:
            try:
                version = self.describe(step.model).versions[-1]
            except UnknownModelError as error:
                raise ContractError(f"an ensemble calls {step.model}: {error}") from error
            missing = sorted(set(step.inputs.values()) - set(tensors))
            if missing:
                raise ContractError(f"{self.url}: input {missing[0]} of the ensemble is missing")
            mapped = {name: tensors[tensor] for name, tensor in step.inputs.items()}
            left = max(0.0, ends_at - time.monotonic())
            given = parameters if step is opened.steps[-1] else None
            answer = self.infer(step.model, version, mapped, left, given)
            tensors.update({tensor: answer[name] for name, tensor in step.outputs.items()})
        output = contract.OUTPUTS[opened.described.kind]
        if output not in tensors:
            raise ContractError(f"{self.url}: an ensemble has no tensor {output}; its steps make {', '.join(tensors)}")
        return {output: tensors[output]}

    @contextmanager
    def _deadline(self, model: str, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise DeadlineError(
                f"{self.url}: model {model} took longer than {timeout_s:g} s: give it more time with "
                "`Connection(timeout_s=…)`"
            ) from error

    def _job(self, model: str, chain: DiffusionModel, inputs: Tensors, parameters: Parameters) -> SamplingJob:
        try:
            return chain.job(inputs[contract.MEL], inputs[contract.SEED], inputs.get(contract.FIRST_SAMPLE), parameters)
        except ValueError as error:
            raise ContractError(f"{self.url}: model {model}: {error}") from error

    def _sample(self, version: int, chain: DiffusionModel, job: SamplingJob, ends_at: float) -> Array:
        """The chain that a Triton model runs, with the denoiser of the same version.

        Raises:
            TimeoutError: it was still running at `ends_at`.
            InferenceError: it was cancelled.
        """
        denoiser = self._open(contract.DENOISER_MODEL, version)

        def denoise(signal: Array, timestep: Array, mel: Array) -> Array:
            step = {contract.SIGNAL: signal, contract.TIMESTEP: timestep[:, np.newaxis], contract.MEL: mel}
            return self._run(contract.DENOISER_MODEL, denoiser, step, ends_at)[contract.NOISE]

        (audio,) = sample_jobs(denoise, [job], chain.tiling)
        if audio is None:
            raise InferenceError(f"{self.url}: the call was cancelled")
        return audio

    def _run(self, model: str, network: _Opened, inputs: Tensors, ends_at: float) -> dict[str, NDArray[Any]]:
        """Run a network.

        Raises:
            TimeoutError: it was still running at `ends_at`.
        """
        assert network.session is not None
        try:
            return self._sessions.run(network.session, inputs, ends_at)
        except TimeoutError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common public base
            kind = ContractError if "INVALID_ARGUMENT" in str(error) else InferenceError
            raise kind(f"{self.url}: model {model}: {' '.join(str(error).split())}") from error

    @cached_property
    def _sessions(self) -> Sessions:
        return Sessions()

    def _open(self, model: str, version: int) -> _Opened:
        """A model version, read at its first call."""
        if ONNXRUNTIME.is_broken:
            raise UsageError(
                f"{self.url}: this process was forked while ONNX Runtime was running a model, and cannot run models "
                "itself: fork while no model is running, or start the process with multiprocessing's spawn"
            )
        with self._lock:
            if (model, version) not in self._opened:
                info = self.describe(model)
                described = ModelContract.from_parameters(model, info.parameters)
                if described.kind in contract.CHAIN_KINDS:
                    try:
                        chain = DiffusionModel.from_config(info.parameters, info.max_batch_size)
                    except ValueError as error:
                        raise ContractError(f"{self.url}: model {model}: {error}") from error
                    self._opened[model, version] = _Opened(described, chain=chain)
                elif described.kind in contract.ENSEMBLE_KINDS:
                    steps = model_repository.parse_steps(self._repository / model / model_repository.CONFIG)
                    self._opened[model, version] = _Opened(described, steps=steps)
                else:
                    self._opened[model, version] = _Opened(described, session=self._session(info, described, version))
            return self._opened[model, version]

    def _session(self, info: ModelInfo, described: ModelContract, version: int) -> Session:
        path = self._repository / info.name / str(version) / "model.onnx"
        threads = info.parameters.get("intra_op_thread_count", "0")
        if not threads.isdecimal():
            raise ContractError(
                f"{info.name}/{model_repository.CONFIG}: intra_op_thread_count is {threads!r}, not a number"
            )
        made = described.provenance.get(version)
        library = require_library(made.operators, f"{path}:") if made and made.operators else None
        try:
            session = self._sessions.open(path, int(threads), library)
        except UsageError:  # about the library, not the model
            raise
        except Exception as error:
            raise ServerError(f"{path}: ONNX Runtime cannot load it: {' '.join(str(error).split())}") from error
        for name, value in described.to_parameters().items():
            if (found := session.metadata.get(name)) != value:
                raise ContractError(
                    f"{path}: its metadata has {name} {found}, the model's config.pbtxt has {value}; the two were not "
                    "written by the same export"
                )
        return session
