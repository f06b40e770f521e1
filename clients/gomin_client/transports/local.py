"""In-process: the models of a repository run by ONNX Runtime here, with no server; on the CPU."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError  # the built-in one only from Python 3.11 on
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract import model as contract
from gomin_client.contract import repository as model_repository
from gomin_client.contract.choices import MOST_CONCURRENT
from gomin_client.contract.model import ModelContract
from gomin_client.errors import ContractError, DeadlineError, InferenceError, ServerError, UnknownModelError
from gomin_client.sampling.base import Array
from gomin_client.sampling.jobs import DiffusionModel, sample_jobs
from gomin_client.transports.base import LONGEST_S, ModelInfo, Parameters, Tensors, unknown_model


class LocalTransport:
    """A model repository on disk. Thread-safe: ONNX Runtime sessions are."""

    def __init__(self, repository: str | Path) -> None:
        """Args: repository: the directory."""
        self._repository = Path(repository)
        self._sessions: dict[tuple[str, int], Any] = {}
        # ONNX Runtime runs in threads of their own, so that the calling one can be interrupted
        self._workers = ThreadPoolExecutor(MOST_CONCURRENT, thread_name_prefix="onnxruntime")
        self._running: set[Any] = set()  # options of runs that are going on
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The URL that leads here."""
        return f"local:{self._repository}"

    @property
    def servers(self) -> int:
        """See `Transport.servers`."""
        return 1

    def models(self) -> list[str]:
        """See `Transport.models`."""
        if not self._repository.is_dir():
            raise ServerError(f"{self.url}: there is no directory {self._repository}; run gomin-export first")
        return model_repository.models(self._repository)

    def describe(self, model: str) -> ModelInfo:
        """See `Transport.describe`."""
        available = self.models()
        if model not in available:
            raise UnknownModelError(unknown_model(self.url, model, available))
        home = self._repository / model
        parameters, max_batch_size = model_repository.parse_config(home / model_repository.CONFIG)
        return ModelInfo(model, tuple(model_repository.versions(home)), parameters, max_batch_size)

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
        info = self.describe(model)
        described = ModelContract.from_parameters(model, info.parameters)
        try:
            if described.kind == contract.DIFFUSION:
                return {contract.AUDIO: self._sample(info, version, inputs, parameters or {}, ends_at)}
            if parameters:
                raise ContractError(f"{self.url}: model {model} takes no request parameters, such as {min(parameters)}")
            return self._run(model, version, inputs, ends_at)
        except FutureTimeoutError as error:
            raise DeadlineError(
                f"{self.url}: model {model} took longer than {timeout_s:g} s: as much audio needs more time (--timeout)"
            ) from error

    def statistics(self, model: str, version: int) -> None:
        """See `Transport.statistics`: there is no server to count."""

    def __enter__(self) -> LocalTransport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """See `Transport.close`; what other threads have running stops at its next operator."""
        for options in list(self._running):
            options.terminate = True
        self._workers.shutdown()
        self._sessions.clear()

    def _sample(self, info: ModelInfo, version: int, inputs: Tensors, parameters: Parameters, ends_at: float) -> Array:
        """The chain that the Triton model gomin_diffusion runs, with the denoiser of the same version."""
        try:
            model = DiffusionModel.from_config(info.parameters, info.max_batch_size)
            job = model.job(inputs[contract.MEL], inputs[contract.SEED], inputs.get(contract.FIRST_SAMPLE), parameters)
        except ValueError as error:
            raise ContractError(f"{self.url}: model {info.name}: {error}") from error

        def denoise(signal: Array, timestep: Array, mel: Array) -> Array:
            step = {contract.SIGNAL: signal, contract.TIMESTEP: timestep[:, np.newaxis], contract.MEL: mel}
            return self._run(contract.DENOISER_MODEL, version, step, ends_at)[contract.NOISE]

        (audio,) = sample_jobs(denoise, [job], model.tiling)
        assert audio is not None  # nobody cancels it
        return audio

    def _run(self, model: str, version: int, inputs: Tensors, ends_at: float) -> dict[str, NDArray[Any]]:
        session = self._session(model, version)
        names = [output.name for output in session.get_outputs()]
        options = self._onnxruntime.RunOptions()
        self._running.add(options)
        try:
            running = self._workers.submit(session.run, names, dict(inputs), options)
            left = max(0.0, ends_at - time.monotonic())
            return dict(zip(names, running.result(left), strict=True))
        except FutureTimeoutError:
            options.terminate = True
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common public base
            kind = ContractError if "INVALID_ARGUMENT" in str(error) else InferenceError
            raise kind(f"{self.url}: model {model}: {' '.join(str(error).split())}") from error
        except BaseException:
            options.terminate = True  # interrupted: ONNX Runtime stops at its next operator
            raise
        finally:
            self._running.discard(options)

    @cached_property
    def _onnxruntime(self) -> Any:
        import onnxruntime  # takes a moment: only where a model is run

        return onnxruntime

    def _session(self, model: str, version: int) -> Any:
        with self._lock:
            if (model, version) not in self._sessions:
                self._sessions[model, version] = self._open(model, version)
            return self._sessions[model, version]

    def _open(self, model: str, version: int) -> Any:
        path = self._repository / model / str(version) / "model.onnx"
        config = model_repository.read_config(self._repository / model / model_repository.CONFIG)
        threads = config.get("intra_op_thread_count", "0")
        if not threads.isdecimal():
            raise ContractError(
                f"{model}/{model_repository.CONFIG}: intra_op_thread_count is {threads!r}, not a number"
            )
        try:
            options = self._onnxruntime.SessionOptions()
            options.intra_op_num_threads = int(threads)
            options.enable_mem_pattern = False  # as in config.pbtxt
            session = self._onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ServerError(f"{path}: ONNX Runtime cannot load it: {' '.join(str(error).split())}") from error
        metadata = session.get_modelmeta().custom_metadata_map
        for name, value in ModelContract.from_parameters(model, config).to_parameters().items():
            if metadata.get(name) != value:
                raise ContractError(
                    f"{path}: its metadata has {name} {metadata.get(name)}, the model's config.pbtxt has {value}; "
                    "the two were not written by the same export"
                )
        return session
