"""`Vocoder` for asyncio: the event loop continues while models run; a cancelled call sends no more requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from gomin_client import DEFAULT_URL
from gomin_client.errors import UsageError
from gomin_client.inference.steps import ChainStep
from gomin_client.inference.stream import Workers
from gomin_client.mel.features import Mel, Wave
from gomin_client.vocoder import ArrayLike, Vocoder

T = TypeVar("T")
Blocks = AsyncIterable[ArrayLike] | Iterable[ArrayLike]


class AsyncVocoder:
    """A `Vocoder` whose methods are coroutines; an async context manager, which connects and closes.

        async with AsyncVocoder("grpc://localhost:8001") as vocoder:
            audio = await vocoder.synthesize(mel)

    Requests run in threads, at most 64 at a time. A cancelled call sends no more requests; the answers to those in
    flight are dropped.
    """

    def __init__(self, url: Any = DEFAULT_URL, model: str = "gan", **settings: Any) -> None:
        """Nothing is contacted yet. Args: see `Vocoder`."""
        self._open = partial(Vocoder, url, model, **settings)
        self._vocoder: Vocoder | None = None
        self._workers = Workers()

    @property
    def vocoder(self) -> Vocoder:
        """The connected model, with its name, version, sample rate, contract.

        Raises:
            UsageError: it is not connected.
        """
        if self._vocoder is None:
            raise UsageError("an AsyncVocoder is used in a block `async with AsyncVocoder(…) as vocoder`")
        return self._vocoder

    async def analyze(self, wave: ArrayLike, sample_rate: float, **options: Any) -> Mel:
        """See `Vocoder.analyze`."""
        return await self._call(partial(self.vocoder.analyze, wave, sample_rate, **options))

    async def synthesize(self, mel: ArrayLike, seed: int | None = None, **options: Any) -> Wave:
        """See `Vocoder.synthesize`."""
        cancelled = threading.Event()
        return await self._call(partial(self.vocoder.until(cancelled).synthesize, mel, seed, **options), cancelled)

    async def reconstruct(self, wave: ArrayLike, sample_rate: float, **options: Any) -> Wave:
        """See `Vocoder.reconstruct`."""
        cancelled = threading.Event()
        return await self._call(
            partial(self.vocoder.until(cancelled).reconstruct, wave, sample_rate, **options), cancelled
        )

    def stream(self, mels: Blocks, seed: int | None = None, **options: Any) -> AsyncIterator[Wave]:
        """See `Vocoder.stream`; the blocks may come from an async iterator."""
        cancelled, source = threading.Event(), _Source(mels)
        return self._parts(self.vocoder.until(cancelled).stream(source, seed, **options), source, cancelled)

    def synthesize_steps(self, mel: ArrayLike, seed: int | None = None, **options: Any) -> AsyncIterator[ChainStep]:
        """See `Vocoder.synthesize_steps`; the chain ends at its next step when the iterator is closed."""
        cancelled = threading.Event()
        return self._parts(self.vocoder.synthesize_steps(mel, seed, **options), _Source(()), cancelled)

    def reconstruct_stream(self, waves: Blocks, sample_rate: float, **options: Any) -> AsyncIterator[Wave]:
        """See `Vocoder.reconstruct_stream`; the blocks may come from an async iterator."""
        cancelled, source = threading.Event(), _Source(waves)
        parts = self.vocoder.until(cancelled).reconstruct_stream(source, sample_rate, **options)
        return self._parts(parts, source, cancelled)

    async def close(self) -> None:
        """Close the connection; requests in flight end with an error."""
        if self._vocoder is not None:
            await self._call(self._vocoder.close)
        self._workers.close()

    async def __aenter__(self) -> Self:
        self._vocoder = await self._call(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, task: Callable[[], T], cancelled: threading.Event | None = None) -> T:
        """Run a task in a thread; if this coroutine is cancelled, set the event."""
        try:
            result: T = await asyncio.wrap_future(self._workers.submit(task))
        except asyncio.CancelledError:
            if cancelled is not None:
                cancelled.set()
            raise
        return result

    async def _parts(self, parts: Generator[T], source: _Source, cancelled: threading.Event) -> AsyncIterator[T]:
        source.loop = asyncio.get_running_loop()
        stepping = threading.Lock()  # a generator is not closed while it runs

        def step() -> T | None:
            with stepping:
                return next(parts, None)

        def end() -> None:
            with stepping:
                parts.close()

        try:
            while (part := await self._call(step)) is not None:
                yield part
        finally:
            cancelled.set()
            source.cancel()
            self._workers.submit(end)


class _Source:
    """Blocks for a thread that reads them, from an iterator of either kind."""

    def __init__(self, blocks: Blocks) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._blocks = blocks
        self._waiting: Future[Any] | None = None
        self._cancelled = False

    def __iter__(self) -> Iterator[ArrayLike]:
        if not isinstance(self._blocks, AsyncIterable):
            yield from self._blocks
            return
        assert self.loop is not None  # set before anything is read
        blocks, ended = aiter(self._blocks), object()

        async def following() -> Any:
            return await anext(blocks, ended)

        while not self._cancelled:
            self._waiting = asyncio.run_coroutine_threadsafe(following(), self.loop)
            if self._cancelled:  # meanwhile: `cancel` has not seen this block
                self._waiting.cancel()
            if (block := self._waiting.result()) is ended:
                return
            yield block

    def cancel(self) -> None:
        """Do not wait for another block."""
        self._cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()
