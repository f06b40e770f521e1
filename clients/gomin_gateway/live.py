"""/v1/stream: mel frames or samples in, samples out, over a WebSocket, while both are still being made.

docs/gateway.md describes the messages. Frames are read no faster than their audio is taken: the client has to wait.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from gomin_client.async_vocoder import AsyncVocoder
from gomin_client.errors import GominError
from gomin_client.files.streams import decode_frames, encode_samples
from gomin_client.inference.pinned import fresh_seed
from gomin_client.mel.features import Mel, Wave
from gomin_client.mel.scales import to_gomin
from gomin_client.transports.base import Transport
from gomin_client.vocoder import Vocoder
from gomin_gateway.access import Record, check_key, record_of
from gomin_gateway.backend import model_errors
from gomin_gateway.parameters import MelReadingParameters, VocodingParameters, message_of, names_of
from gomin_gateway.problems import INTERNAL, MEDIA_TYPE, GoneError, ProblemError
from gomin_gateway.service import Service, logger

LARGEST_MESSAGE = 1 << 20  # bytes
_HELD = 4  # messages that have been received and not been used

_NORMAL, _REFUSED, _FAILED, _LATER = 1000, 1008, 1011, 1013  # close codes, RFC 6455


class Start(VocodingParameters, MelReadingParameters):
    """The first message of a client."""

    type: Literal["start"]
    input: Literal["mel", "audio"]
    input_format: Literal["float32", "int16"] = "float32"
    output_format: Literal["float32", "int16"] = "float32"
    sample_rate: int | None = Field(None, ge=1)
    trim: bool = True
    first_window: int | None = Field(None, ge=1)
    key: str | None = None

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            ProblemError: it does not.
            UsageError: an unknown mel convention.
        """
        if self.input == "mel" and self.input_format != "float32":
            raise ProblemError("bad-parameter", f"input_format {self.input_format}: mel frames are float32")
        if self.input == "mel" and self.sample_rate is not None:
            raise ProblemError("bad-parameter", "sample_rate: mel frames have that of the model")
        if self.input == "audio" and self.sample_rate is None:
            raise ProblemError("bad-parameter", "sample_rate is missing: audio needs one, in Hz")
        self.reading(transpose=False)


class Live:
    """The sessions of one gateway."""

    def __init__(self, service: Service, origins: Sequence[str]) -> None:
        """Args: service: see `make_app`; origins: see `make_app`."""
        self._service = service
        self._origins = origins

    async def serve(self, socket: WebSocket) -> None:
        """Serve one session."""
        record = record_of(socket.scope)
        authorization = socket.headers.get("authorization")
        try:
            self._check_origin(socket)
            if authorization is not None:
                check_key(self._service.keys, authorization)
        except ProblemError as refusal:
            record.problem = refusal.kind
            document = refusal.document(record.id)
            await socket.send_denial_response(
                JSONResponse(document, refusal.status, dict(refusal.headers), media_type=MEDIA_TYPE)
            )
            return
        await socket.accept()
        inbox = _Inbox(socket, self._service.limits.idle_s)
        try:
            await self._session(socket, record, inbox, has_key=authorization is not None)
        except (GoneError, WebSocketDisconnect):
            record.is_gone = True
        except (GominError, ProblemError) as error:
            await self._refuse(socket, record, self._service.refusal(error))
        except Exception:  # a defect of ours
            logger.exception("request %s failed", record.id)
            await self._refuse(socket, record, INTERNAL)
        finally:
            self._service.sessions.discard(record.id)
            inbox.reading.cancel()

    def _check_origin(self, socket: WebSocket) -> None:
        """Refuse pages of other hosts: browsers let every page open a WebSocket to every host.

        Raises:
            ProblemError: it is one of those.
        """
        origin = socket.headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return
        if urlsplit(origin).netloc.lower() != socket.headers.get("host", "").lower():
            raise ProblemError("foreign-origin", f"pages of {origin[:200]} may not use this gateway")

    async def _refuse(self, socket: WebSocket, record: Record, refusal: ProblemError) -> None:
        record.problem = refusal.kind
        code = _LATER if refusal.status in (429, 503) else _FAILED if refusal.status >= 500 else _REFUSED
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):  # it may be gone already
            async with asyncio.timeout(self._service.limits.idle_s):
                await socket.send_json(refusal.document(record.id))
                await socket.close(code, refusal.kind)

    async def _session(self, socket: WebSocket, record: Record, inbox: _Inbox, *, has_key: bool) -> None:
        service = self._service
        start = _parsed(await inbox.first())
        if not has_key:
            check_key(service.keys, None if start.key is None else f"Bearer {start.key}")
        start.check()
        service.take_place()
        service.sessions.add(record.id)
        lease = service.backend.lease()
        work = asyncio.get_running_loop().create_task(self._vocode(socket, record, inbox, start, lease))
        try:
            await asyncio.wait({work, inbox.reading}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise GoneError
            samples = await work
        finally:
            finished = service.in_background(self._finish(work, lease))
            if work.done():  # give the place back first: the caller may come again
                await asyncio.shield(finished)
        await self._send(socket, {"type": "end", "samples": samples})
        await socket.close(_NORMAL)

    async def _finish(self, work: asyncio.Task[int], lease: Transport) -> None:
        """End a session. Its place is free when the model server has answered what is in flight."""
        try:
            work.cancel()
            await asyncio.wait({work})
            await self._service.in_thread(lease.close)
        finally:
            self._service.leave()

    async def _vocode(self, socket: WebSocket, record: Record, inbox: _Inbox, start: Start, lease: Transport) -> int:
        """Send the audio; the number of samples of it."""
        backend, limits = self._service.backend, self._service.limits
        opened = AsyncVocoder(
            lease,
            start.model,
            connection=backend.connection,
            window=start.window,
            in_flight=backend.in_flight,
            sampling=start.sampling(),
            version=start.version,
        )
        async with AsyncExitStack() as stack:
            with model_errors():
                model = await stack.enter_async_context(opened)
            vocoder = model.vocoder
            if start.seed is not None:
                vocoder.check_seed(start.seed)
            seed = fresh_seed() if start.seed is None and vocoder.takes_seed else start.seed
            record.model = f"{vocoder.model} {vocoder.version}"
            await self._send(socket, _ready(vocoder, seed))
            source = _Source(inbox, start, vocoder, record, limits.audio_s)
            options = {"first_window": start.first_window or vocoder.first_window, "force": start.force}
            if start.input == "mel":
                parts = model.stream(source.mels(), seed, **options)
            else:
                parts = model.reconstruct_stream(source.waves(), source.rate, seed=seed, trim=start.trim, **options)
            samples = 0
            async for part in parts:
                samples += part.shape[-1]
                subtype = "16" if start.output_format == "int16" else "float"
                await self._send(socket, encode_samples(part[np.newaxis], subtype))
        return samples

    async def _send(self, socket: WebSocket, message: bytes | dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._service.limits.idle_s):
                await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_json(message))
        except TimeoutError:
            raise ProblemError("deadline", "the client does not read the audio") from None


def _ready(vocoder: Vocoder, seed: int | None) -> dict[str, Any]:
    chain = None if vocoder.sampling is None else vocoder.sampling.to_parameters()
    return {
        "type": "ready",
        "model": vocoder.model,
        "version": vocoder.version,
        "sample_rate": vocoder.sample_rate,
        "n_mels": vocoder.contract.mel.n_mels,
        "hop_length": vocoder.contract.mel.hop_length,
        "chain_halo_frames": vocoder.chain_halo_frames,
        "window": vocoder.window,
        "seed": seed,
        "sampling": chain,
    }


def _parsed(message: str | bytes) -> Start:
    """The first message.

    Raises:
        ProblemError: it is something else.
    """
    if isinstance(message, bytes):
        raise ProblemError("bad-body", 'the first message is binary: expected JSON of the type "start"')
    try:
        return Start.model_validate_json(message)
    except ValidationError as error:
        problems = error.errors()
        if any(problem["type"] == "json_invalid" for problem in problems):
            raise ProblemError("bad-body", "the first message is not JSON") from None
        raise ProblemError("bad-parameter", message_of(problems, names_of(Start))) from None


class _Inbox:
    """The messages of a client, a few of which are held.

    Attributes:
        reading: runs until the client is gone.
    """

    def __init__(self, socket: WebSocket, idle_s: float) -> None:
        self._socket = socket
        self._idle_s = idle_s
        self._held: asyncio.Queue[str | bytes | ProblemError] = asyncio.Queue(_HELD)
        self.reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    message = await self._socket.receive()
            except TimeoutError:
                await self._held.put(ProblemError("slow-upload", f"no message for {self._idle_s:g} s"))
                await self._until_gone()
                return
            if message["type"] == "websocket.disconnect":
                return
            content = message.get("bytes") if message.get("bytes") is not None else message.get("text")
            await self._held.put(content or b"")

    async def _until_gone(self) -> None:
        while (await self._socket.receive())["type"] != "websocket.disconnect":
            pass

    async def first(self) -> str | bytes:
        """The first message.

        Raises:
            GoneError: the client went away.
            ProblemError: there is none in time.
        """
        getting = asyncio.get_running_loop().create_task(self.next())
        await asyncio.wait({getting, self.reading}, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            getting.cancel()
            raise GoneError
        return await getting

    async def next(self) -> str | bytes:
        """The next message.

        Raises:
            ProblemError: there is none in time.
        """
        message = await self._held.get()
        if isinstance(message, ProblemError):
            raise message
        return message


class _Source:
    """The input of a session, decoded and checked.

    Attributes:
        rate: sample rate of audio, in Hz.
    """

    def __init__(self, inbox: _Inbox, start: Start, vocoder: Vocoder, record: Record, longest_s: float) -> None:
        self.rate = start.sample_rate or vocoder.sample_rate
        self._inbox = inbox
        self._start = start
        self._config = vocoder.contract.mel
        self._record = record
        self._longest_s = longest_s

    async def mels(self) -> AsyncIterator[Mel]:
        """(n_mels, frames) each."""
        config, start = self._config, self._start
        async for data in self._messages(4 * config.n_mels, "mel frame"):
            mel = decode_frames(data, config.n_mels)
            self._count(mel.shape[-1] * config.hop_length / config.sample_rate)
            yield to_gomin(mel, start.mel_convention, config, stft_normalized=start.stft_norm == "window")

    async def waves(self) -> AsyncIterator[Wave]:
        """(samples,) each."""
        kind, scale = ("<i2", 1 / 32768) if self._start.input_format == "int16" else ("<f4", 1)
        async for data in self._messages(np.dtype(kind).itemsize, "sample"):
            samples: NDArray[np.float32] = np.frombuffer(data, kind).astype(np.float32) * np.float32(scale)
            self._count(len(samples) / self.rate)
            yield samples

    async def _messages(self, size: int, what: str) -> AsyncIterator[bytes]:
        """Binary messages of whole items, until the end."""
        while isinstance(message := await self._inbox.next(), bytes):
            if len(message) % size:
                raise ProblemError(
                    "bad-body", f"a message of {len(message)} bytes: expected whole {what}s of {size} bytes"
                )
            if message:
                yield message
        try:
            ended = json.loads(message) == {"type": "end"}
        except ValueError:
            ended = False
        if not ended:
            raise ProblemError("bad-body", 'a text message in the middle of the input: expected {"type": "end"}')

    def _count(self, seconds: float) -> None:
        self._record.audio_s += seconds
        if self._record.audio_s > self._longest_s:
            raise ProblemError("too-long", f"the audio is longer than {self._longest_s:g} s, the longest that is taken")
