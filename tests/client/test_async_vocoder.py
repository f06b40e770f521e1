"""The API for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gomin_client import AsyncVocoder, MockModel, MockTransport, UsageError, Vocoder, async_vocoder
from gomin_client.transports.mock import Call
from tests.support import RunningServer

MEL = np.random.default_rng(0).uniform(0, 1, (128, 150)).astype(np.float32)
LONGEST_S = 120


@pytest.mark.parametrize("transport", ["grpc", "http", "local"])
def test_equals_the_blocking_one(server: RunningServer, repository: Path, transport: str) -> None:
    url = f"local:{repository}" if transport == "local" else getattr(server, transport)
    with Vocoder(url, window=80) as blocking:
        expected = blocking.synthesize(MEL)
        wave = expected[:9000]
        again, mel = blocking.reconstruct(wave, 24000), blocking.analyze(wave, 24000)

    async def blocks(array: NDArray[np.float32], size: int) -> AsyncIterator[NDArray[np.float32]]:
        for first in range(0, array.shape[-1], size):
            await asyncio.sleep(0)
            yield array[..., first : first + size]

    async def use() -> None:
        async with AsyncVocoder(url, window=80) as vocoder:
            assert vocoder.vocoder.sample_rate == 24000
            both = await asyncio.gather(vocoder.synthesize(MEL), vocoder.synthesize(MEL))
            for audio in both:
                np.testing.assert_allclose(audio, expected, rtol=0, atol=1e-5)
            np.testing.assert_allclose(await vocoder.reconstruct(wave, 24000), again, rtol=0, atol=1e-5)
            np.testing.assert_array_equal(await vocoder.analyze(wave, 24000), mel)
            for source in (blocks(MEL, 7), [MEL[:, :100], MEL[:, 100:]]):
                parts = [part async for part in vocoder.stream(source)]
                assert len(parts) > 1
                np.testing.assert_allclose(np.concatenate(parts), expected, rtol=0, atol=1e-5)
            parts = [part async for part in vocoder.reconstruct_stream(blocks(wave, 999), 24000)]
            np.testing.assert_allclose(np.concatenate(parts), again, rtol=0, atol=1e-5)

    asyncio.run(asyncio.wait_for(use(), LONGEST_S))


class Gate:
    """A model that answers when it is let."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        vocoder = MockModel.vocoder(lambda mel: np.zeros((len(mel), 256 * mel.shape[-1]), np.float32), halo_frames=1)
        self._answer = vocoder.answer
        self.transport = MockTransport({"gomin_gan": MockModel(self.answer, vocoder.parameters)})

    def answer(self, call: Call) -> object:
        self.entered.set()
        assert self.open.wait(LONGEST_S)
        return self._answer(call)


async def entered(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.001)


def test_the_loop_goes_on_and_a_cancelled_call_sends_no_more() -> None:
    gate = Gate()

    async def use() -> None:
        async with AsyncVocoder(gate.transport, window=10, in_flight=2) as vocoder:
            call = asyncio.create_task(vocoder.synthesize(MEL))
            await entered(gate.entered)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            sent = len(gate.transport.calls)
            assert sent <= 2
            gate.open.set()
            assert (await vocoder.synthesize(MEL[:, :5])).shape == (1280,)  # it can still be used
            assert len(gate.transport.calls) <= sent + 1 + 1

    asyncio.run(asyncio.wait_for(use(), LONGEST_S))


def test_a_cancelled_stream_ends_its_source() -> None:
    gate = Gate()
    gate.open.set()
    ended = threading.Event()

    async def use() -> None:
        async def source() -> AsyncIterator[NDArray[np.float32]]:
            try:
                yield MEL
                await asyncio.Event().wait()  # nothing more comes
            finally:
                ended.set()

        async def listen(vocoder: AsyncVocoder) -> None:
            async for _ in vocoder.stream(source()):
                pass

        async with AsyncVocoder(gate.transport, window=10) as vocoder:
            listening = asyncio.create_task(listen(vocoder))
            await entered(gate.entered)
            await asyncio.sleep(0.05)
            listening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listening
            await entered(ended)

    asyncio.run(asyncio.wait_for(use(), LONGEST_S))


def test_errors_of_the_source_and_of_the_model_arrive() -> None:
    async def use() -> None:
        gate = Gate()
        gate.open.set()

        def broken() -> Iterator[NDArray[np.float32]]:
            yield MEL
            raise RuntimeError("the source is broken")

        async with AsyncVocoder(gate.transport, window=10) as vocoder:
            with pytest.raises(RuntimeError, match="the source is broken"):
                _ = [part async for part in vocoder.stream(broken())]
            with pytest.raises(UsageError, match="a first window of 1 frames"):
                vocoder.stream([MEL], first_window=1)

    asyncio.run(asyncio.wait_for(use(), LONGEST_S))


def test_without_its_block() -> None:
    with pytest.raises(UsageError, match="async with AsyncVocoder"):
        AsyncVocoder("local:x").vocoder  # noqa: B018


def test_a_source_that_is_cancelled_between_two_blocks_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cancel` in the moment when the next block is being asked for."""

    async def never() -> AsyncIterator[NDArray[np.float32]]:
        await asyncio.Event().wait()
        yield MEL

    async def use() -> None:
        source = async_vocoder._Source(never())
        source.loop = asyncio.get_running_loop()
        ask = asyncio.run_coroutine_threadsafe

        def ask_after_the_end(*arguments: Any) -> Any:
            source.cancel()
            return ask(*arguments)

        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", ask_after_the_end)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.to_thread(list, source)

    asyncio.run(asyncio.wait_for(use(), LONGEST_S))
