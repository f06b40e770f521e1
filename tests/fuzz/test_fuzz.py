"""The fuzzing targets under hypothesis, which is fast enough for `make test`; `make fuzz` uses atheris."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import seeds

SEEDS = seeds()
QUICK = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@st.composite
def damaged(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """A valid input with bytes overwritten, cut out, put in, or its end missing; or anything at all."""
    content = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, min(len(content), 300) - 1)))  # headers are at the start
        what = draw(st.sampled_from(["overwrite", "insert", "delete", "cut"]))
        piece = draw(st.binary(min_size=1, max_size=8))
        if what == "overwrite":
            content[at : at + len(piece)] = piece
        elif what == "insert":
            content[at:at] = piece
        elif what == "delete":
            del content[at : at + len(piece)]
        else:
            del content[draw(st.integers(0, len(content))) :]
    return bytes(content)


@pytest.mark.parametrize("name", SEEDS)
def test_a_result_or_an_error_of_ours(name: str) -> None:
    target, valid = SEEDS[name]
    for content in valid:
        target(content)

    @QUICK
    @given(st.one_of(damaged(valid), st.binary(max_size=200)))
    def feed(content: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target(content)

    feed()
