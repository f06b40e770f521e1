"""Windows of a mel in flight: read while they arrive, vocoded several at a time, returned in order."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract.choices import MOST_CONCURRENT
from gomin_client.errors import UsageError
from gomin_client.inference.windows import Window, Windower
from gomin_client.mel.features import Wave
from gomin_client.threads import NoThreadError, start_thread
from gomin_client.transports.forking import renew_in_children

Array = NDArray[np.float32]
Infer = Callable[[Array, Window], Array]
Task = Callable[[], Any]


def vocode(
    blocks: Iterable[Array], windower: Windower, infer: Infer, workers: Workers, in_flight: int
) -> Iterator[Array]:
    """Audio of a mel spectrogram, in order, as its windows are done.

    `blocks` is read in a separate thread, so that finished audio is not held back by frames that have yet to come; and
    no faster than audio is taken: at most `in_flight` windows are in flight or wait to be taken. A caller that stops
    early leaves that thread with the block that it waits for. A list is read without that thread, and a single window
    of it is vocoded in the caller's: for a short mel, threads cost more than all else that the client does.

    Args:
        blocks: (channels, n_mels, any number of frames) each.
        windower: cuts them; a fresh one.
        infer: (channels, n_mels, frames), window → (channels, samples), a whole number of samples a frame; called from
            several threads.
        workers: threads that call it.
        in_flight: maximum number of windows.

    Yields:
        (channels, samples), one for each window.

    Raises:
        UsageError: the process has forked since the first part.
        Exception: what `blocks` or `infer` raised; audio before it has been yielded.
    """
    process = os.getpid()
    way = _in_callers_thread if isinstance(blocks, list) else _with_reading_thread
    with closing(way(blocks, windower, infer, workers, in_flight)) as made:
        for window, audio in made:
            hop = audio.shape[-1] // window.length
            yield audio[..., window.skip * hop : (window.skip + window.keep) * hop]
            if os.getpid() != process:  # the threads have stayed in the parent
                raise UsageError("a stream cannot be continued in a forked process: begin a new one there")


def _with_reading_thread(
    blocks: Iterable[Array], windower: Windower, infer: Infer, workers: Workers, in_flight: int
) -> Generator[tuple[Window, Array]]:
    """Windows and their audio, of blocks that arrive."""
    pending: queue.SimpleQueue[tuple[Window, Future[Array]] | BaseException | None] = queue.SimpleQueue()
    free = threading.Semaphore(in_flight)
    stopped = threading.Event()

    def feed() -> None:
        try:
            for window, piece in _cut(blocks, windower):
                free.acquire()
                if stopped.is_set():
                    return
                future = workers.submit(partial(infer, np.ascontiguousarray(piece), window))
                pending.put((window, future))
                if window.length < windower.size:  # wanted soon: the next one would take cores from it
                    wait([future])
            pending.put(None)
        except BaseException as error:  # for the caller's thread
            pending.put(error)

    start_thread(feed, "gomin-feed")
    try:
        while (item := pending.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            window, audio = item[0], item[1].result()
            free.release()  # so that the next is in flight while the caller uses this one
            yield window, audio
    finally:
        stopped.set()
        free.release()
        item = None  # an error in it refers to this frame: the source would stay open until Python looks for cycles


def _in_callers_thread(
    blocks: Iterable[Array], windower: Windower, infer: Infer, workers: Workers, in_flight: int
) -> Generator[tuple[Window, Array]]:
    """Windows and their audio, of blocks that are all there."""
    cuts = deque(_cut(blocks, windower))
    if len(cuts) == 1:
        window, piece = cuts.popleft()
        yield window, infer(np.ascontiguousarray(piece), window)
        return
    pending: deque[tuple[Window, Future[Array]]] = deque()

    def submit_next() -> None:
        if cuts:
            window, piece = cuts.popleft()
            pending.append((window, workers.submit(partial(infer, np.ascontiguousarray(piece), window))))

    for _ in range(in_flight):
        submit_next()
    while pending:
        window, future = pending.popleft()
        audio = future.result()
        submit_next()  # in flight while the caller uses this one
        yield window, audio


def _cut(blocks: Iterable[Array], windower: Windower) -> Iterator[tuple[Window, Array]]:
    """Windows and their frames; keeps only the frames that may be needed again."""
    held: Array | None = None
    origin = 0  # index of the first frame held
    for block in blocks:
        held = block if held is None else np.concatenate((held, block), axis=-1)
        for window in windower.feed(block.shape[-1]):
            yield window, held[..., window.first - origin :][..., : window.length]
        held = held[..., windower.needed_from - origin :]
        origin = windower.needed_from
    for window in windower.finish():
        assert held is not None  # there is a window only where there were frames
        yield window, held[..., window.first - origin :][..., : window.length]


@dataclass
class Tally:
    """Blocks of a waveform, (channels, any number of samples) each, that are counted as they pass.

    Attributes:
        blocks: the blocks.
        keep: whether the first channel is kept.
        samples: number of samples that have passed, per channel.
    """

    blocks: Iterable[Wave]
    keep: bool = False
    samples: int = 0
    _kept: list[Wave] = field(default_factory=list)

    def __iter__(self) -> Iterator[Wave]:
        for block in self.blocks:
            self.samples += block.shape[-1]
            if self.keep:
                self._kept.append(block[0])
            yield block

    def first_channel(self) -> Wave:
        """(samples,): the first channel of all blocks, if it was kept."""
        return np.concatenate(self._kept)


def trimmed(parts: Iterable[Wave], recorded: Tally) -> Iterator[Wave]:
    """Audio cut to the length of the recording that it is made from.

    The excess is at the very end, in a part that is made after the whole recording has been counted.

    Args:
        parts: (channels, samples) each.
        recorded: the recording, at the same sample rate.
    """
    made = 0
    for part in parts:
        kept = part[..., : recorded.samples - made]
        made += kept.shape[-1]
        yield kept


class Workers:
    """Threads that are started when they are needed, and kept; they end when this object is closed or dropped.

    Unlike those of `concurrent.futures`, they do not keep a program from ending: after an interrupt nobody waits for a
    server's answer.
    """

    def __init__(self, most: int = MOST_CONCURRENT) -> None:
        """Args: most: maximum number of threads."""
        self._most = most
        self._is_closed = False
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Begin without threads; see `Forkable`."""
        self._lock = threading.Lock()
        self._threads = 0
        # the threads do not refer to this object, so that it can be dropped; None ends all of them
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Task] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)  # one permit for each thread that waits for a task
        weakref.finalize(self, self._tasks.put, None)

    def submit(self, task: Task) -> Future[Any]:
        """Run a task in one of the threads.

        Returns:
            Its result; a `UsageError` if this object has been closed.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._is_closed:
                future.set_exception(UsageError("the vocoder has been closed"))
                return future
            if not self._idle.acquire(blocking=False) and self._threads < self._most:
                try:
                    start_thread(partial(_work, self._tasks, self._idle), "gomin-request")
                    self._threads += 1
                except NoThreadError as error:
                    if not self._threads:  # else one of them does it later
                        future.set_exception(error)
                        return future
            self._tasks.put((future, task))
        return future

    def close(self) -> None:
        """End the threads after the tasks that have been submitted."""
        with self._lock:
            self._is_closed = True
            self._tasks.put(None)


def _work(tasks: queue.SimpleQueue[tuple[Future[Any], Task] | None], idle: threading.Semaphore) -> None:
    """Run tasks until None is found, which is left for the other threads."""
    while (given := tasks.get()) is not None:
        future, task = given
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(task())
            except BaseException as error:  # for the caller
                future.set_exception(error)
        del given, future, task  # not kept while waiting
        idle.release()
    tasks.put(None)
