"""Vocoding a mel spectrogram window by window, several at a time, while its frames arrive."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gomin_client.inference.windows import Window, Windower
from gomin_client.inference.workers import Workers

Array = NDArray[np.float32]


def vocode(
    blocks: Iterable[Array],
    windower: Windower,
    infer: Callable[[Array, Window], Array],
    workers: Workers,
    in_flight: int,
) -> Iterator[Array]:
    """Audio of a mel spectrogram, as its windows are done, in order.

    `blocks` is read in a thread of its own, so that finished audio is not held back by frames that have yet to come;
    and no faster than audio is taken: `in_flight` windows are under way or wait to be taken, no more. Whoever stops
    early leaves that thread with the block that it waits for.

    Args:
        blocks: (channels, n_mels, any number of frames) each.
        windower: cuts them; a fresh one.
        infer: (channels, n_mels, frames), window → (channels, samples), a whole number of samples a frame; called from
            several threads.
        workers: call it.
        in_flight: windows at a time.

    Yields:
        (channels, samples), one for each window.

    Raises:
        Exception: what `blocks` or `infer` raised; audio before it has been yielded.
    """
    pending: queue.SimpleQueue[tuple[Window, Future[Array]] | BaseException | None] = queue.SimpleQueue()
    free = threading.Semaphore(in_flight)
    stopped = threading.Event()

    def feed() -> None:
        try:
            for window, piece in _cut(blocks, windower):
                free.acquire()
                if stopped.is_set():
                    return
                pending.put((window, workers.submit(partial(infer, piece, window))))
            pending.put(None)
        except BaseException as error:  # for the caller's thread
            pending.put(error)

    threading.Thread(target=feed, name="gomin-feed", daemon=True).start()
    try:
        while (item := pending.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            window, future = item
            audio = future.result()
            hop = audio.shape[-1] // window.length
            free.release()  # so that the next is under way while the caller does something with this
            yield audio[..., window.skip * hop : (window.skip + window.keep) * hop]
    finally:
        stopped.set()
        free.release()


def _cut(blocks: Iterable[Array], windower: Windower) -> Iterator[tuple[Window, Array]]:
    """Windows and their frames; holds no more frames than may be needed again."""
    held: Array | None = None
    origin = 0  # index of the first frame held
    for block in blocks:
        held = block if held is None else np.concatenate((held, block), axis=-1)
        for window in windower.feed(block.shape[-1]):
            yield window, _piece(held, window, origin)
        held = held[..., windower.needed_from - origin :]
        origin = windower.needed_from
    for window in windower.finish():
        assert held is not None  # there is a window only where there were frames
        yield window, _piece(held, window, origin)


def _piece(held: Array, window: Window, origin: int) -> Array:
    start = window.first - origin
    return np.ascontiguousarray(held[..., start : start + window.length])
