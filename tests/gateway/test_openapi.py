"""The description of the interface holds for requests that a fuzzer makes from it; the page that shows it."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase

from gomin_gateway.settings import ApiKeys
from tests.gateway.running import WAIT_S, Gated, Gateway, running
from tests.gateway.test_answers import wav
from tests.gateway.test_problems import npy
from tests.support import ROOT

if TYPE_CHECKING:
    import schemathesis

EXAMPLES = 10  # requests for each operation and mode
VENDORED = ROOT / "clients/gomin_gateway/vendor/swagger-ui"


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Gateway]:
    model = Gated()
    model.let_all()
    with running(model.transport, keys=ApiKeys(["key"])) as made:
        yield made


@pytest.fixture(scope="module")
def fuzzed_steps(streaming: Path) -> Iterator[Gateway]:
    """A gateway whose diffusion model sends its steps."""
    with running([f"local:{streaming}"], keys=ApiKeys(["key"])) as made:
        yield made


OPERATIONS = [
    ("POST", "/v1/reconstruct"),
    ("POST", "/v1/synthesize"),
    ("POST", "/v1/analyze"),
    ("POST", "/v1/resample"),
    ("POST", "/v1/reconstruct/steps"),
    ("POST", "/v1/synthesize/steps"),
    ("GET", "/v1/models"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
]


def test_all_operations_are_fuzzed(fuzzed: Gateway) -> None:
    described = fuzzed.call("GET", "/openapi.json").json["paths"]
    assert sorted((method.upper(), path) for path, methods in described.items() for method in methods) == sorted(
        OPERATIONS
    )


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        *((*operation, "positive") for operation in OPERATIONS),
        # the others have nothing that could be wrong
        *((*operation, "negative") for operation in OPERATIONS if operation[0] == "POST"),
    ],
)
def test_a_fuzzer_finds_no_contradiction(request: pytest.FixtureRequest, method: str, path: str, mode: str) -> None:
    """No status, content type or body but those that are described; wrong requests are refused; no internal errors."""
    import schemathesis
    from schemathesis.checks import CHECKS

    model, n_mels, name = ("diffusion", 32, "fuzzed_steps") if path.endswith("/steps") else ("gan", 128, "fuzzed")
    fuzzed: Gateway = request.getfixturevalue(name)
    valid = npy(np.zeros((n_mels, 9))) if "synthesize" in path else wav(0.1)
    schema = schemathesis.openapi.from_dict(fuzzed.call("GET", "/openapi.json").json)
    schema.config.update(base_url=fuzzed.url, request_timeout=WAIT_S)
    operation = schema[path][method]
    # a random body is no recording, but it is a binary body
    checks = [check for check in CHECKS.get_all() if check.__name__ != "positive_data_acceptance"]

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def fuzz(case: schemathesis.Case) -> None:
        if mode == "positive" and case.media_type == "application/octet-stream":
            case.body = valid
            case.query["model"] = model
        answer = case.call_and_validate(checks=checks, headers={"Authorization": "Bearer key"})
        statuses.add(answer.status_code)

    statuses: set[int] = set()
    fuzz()
    assert statuses == {200} or method == "POST"
    assert (200 in statuses) == (mode == "positive")


def test_swagger_ui_is_that_of_the_package() -> None:
    table = (VENDORED / "README.md").read_text()
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        content = gzip.decompress((VENDORED / f"{name}.gz").read_bytes())
        assert f"| `{name}` | `{hashlib.sha256(content).hexdigest()}` |" in table


def test_the_page_asks_no_other_host(fuzzed: Gateway) -> None:
    page = fuzzed.call("GET", "/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert addresses == ["data:,", "docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"]
    for name in addresses[1:]:
        packed = fuzzed.call("GET", f"/{name}", headers={"Accept-Encoding": "gzip"})
        plain = fuzzed.call("GET", f"/{name}")
        assert packed.status == plain.status == 200
        if "content-encoding" in packed.headers:
            assert gzip.decompress(packed.body) == plain.body
    assert b"SwaggerUIBundle" in fuzzed.call("GET", "/docs/start.js").body
    assert fuzzed.call("GET", "/").headers["content-type"].startswith("text/html")
