"""ONNX Runtime in this process: sessions on the CPU, and runs that can be interrupted and have a deadline."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Semaphore
from typing import Any

from numpy.typing import NDArray

from gomin_client.contract.choices import MOST_CONCURRENT
from gomin_client.native.library import OperatorLibrary
from gomin_client.transports.base import Tensors
from gomin_client.transports.forking import ONNXRUNTIME, skip_destructors_in_children

# Microseconds for which a thread of ONNX Runtime waits for work before it sleeps. By default it occupies its core for
# about 30 ms, also after a call. Versions of ONNX Runtime that do not have the setting ignore it.
SPIN_DURATION = "session.intra_op.spin_duration_us"
SPIN_US = 100


@dataclass(frozen=True)
class Session:
    """An ONNX model that can be run.

    Attributes:
        onnx: ONNX Runtime's session.
        outputs: names of its outputs.
        metadata: the model's.
        turn: what a run waits for.
    """

    onnx: Any
    outputs: list[str]
    metadata: dict[str, str]
    turn: AbstractContextManager[object]


class Sessions:
    """The sessions of one owner, and the threads in which they run, so that a calling thread can be interrupted.

    Attributes:
        onnxruntime: the module.
    """

    def __init__(self) -> None:
        import onnxruntime  # takes a moment: only if a model is run

        skip_destructors_in_children()
        self.onnxruntime = onnxruntime
        self._workers = ThreadPoolExecutor(MOST_CONCURRENT, thread_name_prefix="onnxruntime")
        self._running: set[Any] = set()  # options of the runs in progress

    def open(self, path: Path, threads: int, library: OperatorLibrary | None) -> Session:
        """Load a model. ONNX Runtime's exceptions, which have no common public base, are left as they are.

        Args:
            path: the ONNX file.
            threads: number of threads of a run; 0 for all cores.
            library: the operators of our own that it needs, if any.
        """
        with ONNXRUNTIME.work():
            options = self.onnxruntime.SessionOptions()
            if library is not None:
                library.register(options)
            options.intra_op_num_threads = threads
            options.enable_mem_pattern = False  # as in config.pbtxt
            options.add_session_config_entry(SPIN_DURATION, str(SPIN_US))
            session = self.onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        # Without operators of our own, parts of a run use one thread, in which others can go on. With them all cores
        # are busy, and two runs at a time only take them from each other: docs/performance.md.
        turn = nullcontext() if library is None else Semaphore(_runs_at_a_time(threads))
        return Session(session, names, session.get_modelmeta().custom_metadata_map, turn)

    def run(self, session: Session, inputs: Tensors, ends_at: float) -> dict[str, NDArray[Any]]:
        """Run a model. ONNX Runtime's exceptions are left as they are.

        Args:
            session: the model.
            inputs: name → tensor.
            ends_at: deadline, by `time.monotonic`.

        Raises:
            TimeoutError: it was still running at `ends_at`, or waiting for its turn.
        """
        options = self.onnxruntime.RunOptions()
        self._running.add(options)

        def run() -> Any:
            with session.turn, ONNXRUNTIME.work():
                return session.onnx.run(session.outputs, dict(inputs), options)

        try:
            running = self._workers.submit(run)
            found = running.result(max(0.0, ends_at - time.monotonic()))
        except BaseException:
            options.terminate = True  # late or interrupted: ONNX Runtime stops at its next operator
            raise
        finally:
            self._running.discard(options)
        return dict(zip(session.outputs, found, strict=True))

    def close(self) -> None:
        """Stop the runs in progress at their next operator."""
        for options in list(self._running):
            options.terminate = True
        self._workers.shutdown()


def _runs_at_a_time(threads: int) -> int:
    """Number of runs, of that many threads each, that have a core for each thread."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (threads or cores))
