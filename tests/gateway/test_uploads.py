"""Forms that arrive in pieces, and what is not a form."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from gomin_gateway import uploads
from gomin_gateway.problems import GoneError, ProblemError
from gomin_gateway.settings import Limits
from tests.gateway.running import multipart


def receive(target: Path, pieces: list[bytes], content_type: str = "", *, is_cut: bool = False) -> bytes:
    """What is written of a body that arrives in pieces; `is_cut`: the client goes away after them."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    end = {"type": "http.disconnect"} if is_cut else {"type": "http.request", "body": b"", "more_body": False}
    following = itertools.chain(messages, [end])
    headers = [(b"content-type", content_type.encode())] if content_type else []

    async def next_message() -> dict[str, object]:
        return next(following)

    async def work() -> None:
        request = Request({"type": "http", "headers": headers}, next_message)  # type: ignore[arg-type]
        await uploads.receive(request, target, Limits(body_bytes=5000), asyncio.to_thread)

    asyncio.run(work())
    return target.read_bytes()


def split(body: bytes, positions: list[int]) -> list[bytes]:
    edges = [0, *sorted(position % (len(body) + 1) for position in positions), len(body)]
    return [body[first:last] for first, last in itertools.pairwise(edges)]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(min_size=1, max_size=200) | st.sampled_from([b"\r\n--XX", b"--XX--\r\n", b"\r\n--X", b"\r\n"]),
    positions=st.lists(st.integers(0, 10_000), max_size=6),
    is_form=st.booleans(),
)
def test_the_file_arrives_whole(tmp_path: Path, content: bytes, positions: list[int], is_form: bool) -> None:
    body, headers = multipart(content)
    if is_form and b"\r\n--XX" in b"\r\n" + content:
        return  # a client chooses a boundary that the file does not contain
    if not is_form:
        body, headers = content, {"Content-Type": "audio/wav"}
    assert receive(tmp_path / "a", split(body, positions), headers["Content-Type"]) == content


def test_a_form_of_many_small_pieces_is_bounded(tmp_path: Path) -> None:
    body, headers = multipart(bytes(6000))
    with pytest.raises(ProblemError, match="exceeds 5,000 bytes"):
        receive(tmp_path / "a", [body[at : at + 1] for at in range(len(body))], headers["Content-Type"])


def test_a_client_who_goes_away(tmp_path: Path) -> None:
    with pytest.raises(GoneError):
        receive(tmp_path / "a", [b"abc"], is_cut=True)
