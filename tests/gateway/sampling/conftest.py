"""The JavaScript samplers' answers to all cases."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.gateway.node import run_in_node
from tests.gateway.sampling.cases import CASES, Case

Answer = dict[str, Any]  # {"value": …} or {"error": its message}
Answers = dict[str, list[tuple[Case, Answer]]]  # by group


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """One run of twin.mjs."""
    found = run_in_node(Path(__file__).with_name("twin.mjs"), CASES, tmp_path_factory.mktemp("node"))
    return {group: list(zip(cases, found[group], strict=True)) for group, cases in CASES.items()}


def array(answer: Answer, kind: Any) -> NDArray[Any]:
    """The numbers of an answer."""
    return np.frombuffer(base64.b64decode(answer["value"]), dtype=kind)


def asked(call: Callable[[Case], Any], case: Case) -> Answer:
    """What Python answers."""
    try:
        return {"value": call(case)}
    except ValueError as error:
        return {"error": str(error)}
