"""What a server or repository offers, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gomin_client.contract.model import ModelContract
from gomin_client.errors import ServerError
from gomin_client.mel.features import MelConfig
from gomin_client.tools.description import describe, describe_model
from gomin_client.transports.base import ModelInfo
from gomin_client.transports.mock import MockModel, MockTransport
from gomin_client.transports.registry import connect
from tests.client.transports.malicious import Reply, http_server, silence
from tests.support import RunningServer

DIFFUSION = ModelContract("diffusion", MelConfig(22050, 800, 200, 80), 13, num_diffusion_steps=50).to_parameters()


@pytest.mark.server
def test_each_transport_describes_the_same(server: RunningServer, repository: Path) -> None:
    found = {}
    for url in (server.http, server.grpc, f"local:{repository}"):
        with connect(url) as transport:
            found[url] = describe(transport)

    http, grpc, local = found.values()
    assert [one["url"] for one in found.values()] == list(found)
    assert http["server"] == grpc["server"] == {"name": "triton", "version": "2.51.0"}
    assert local["server"]["name"] == "onnxruntime"
    assert http["models"] == grpc["models"] == local["models"]
    assert [model["problem"] for model in http["models"]] == [None] * len(http["models"])


@pytest.mark.server
def test_the_reach_is_that_of_the_documentation(server: RunningServer) -> None:
    """docs/http.md, recordings of any length."""
    with connect(server.http) as transport:
        found = {
            model["name"]: (model["halo_frames"], model["reach_frames"]) for model in describe(transport)["models"]
        }

    assert found["gomin_mel"] == (0, 2)
    assert found["gomin_gan"] == (13, 13)
    assert found["gomin_reconstruct"] == (13, 15)
    assert found["gomin_denoiser"] == (1, 1)
    assert found["gomin_diffusion"] == (1, 50)
    assert found["gomin_reconstruct_diffusion"] == (1, None)


@pytest.mark.server
def test_the_example_of_every_model_is_answered(url: str) -> None:
    """With outputs of the shape and type that the description gives."""
    with connect(url) as transport:
        for model in describe(transport)["models"]:
            inputs, sizes = example_of(model)
            answer = transport.infer(model["name"], model["versions"][-1]["version"], inputs)
            assert set(answer) == {output["name"] for output in model["outputs"]}
            sizes.setdefault("frames", 1 + sizes.get("samples", 0) // model["hop_length"])  # of a recording
            sizes["samples"] = sizes["reconstructed_samples"] = model["hop_length"] * sizes["frames"]
            for output in model["outputs"]:
                array = answer[output["name"]]
                expected = [sizes[axis] if size < 0 else size for axis, size in axes_of(output)]
                assert list(array.shape) == expected
                assert array.dtype == DTYPES[output["datatype"]]
                assert np.isfinite(array).all()


def example_of(model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """The arrays of the example request, and the sizes of the axes that a request chooses."""
    described = {tensor["name"]: tensor for tensor in model["inputs"]}
    inputs, sizes = {}, {}
    for given in model["example"]["body"]["inputs"]:
        tensor = described.pop(given["name"])
        assert given["datatype"] == tensor["datatype"]
        for (axis, size), actual in zip(axes_of(tensor), given["shape"], strict=True):
            if size < 0:
                assert sizes.setdefault(axis, actual) == actual
            else:
                assert size == actual
        inputs[given["name"]] = np.array(given["data"], DTYPES[given["datatype"]]).reshape(given["shape"])
    assert all(tensor["optional"] for tensor in described.values())
    return inputs, sizes


def axes_of(tensor: dict[str, Any]) -> list[tuple[str, int]]:
    return list(zip(tensor["axes"], tensor["shape"], strict=True))


DTYPES = {"FP32": np.dtype(np.float32), "UINT64": np.dtype(np.uint64), "INT64": np.dtype(np.int64)}


def test_settings_limits_and_origin() -> None:
    parameters = {
        **DIFFUSION,
        "gomin.max_frames": "777",
        "gomin.sampler": "ddim",
        "gomin.steps": "9",
        "gomin.eta": "0.5",
        "gomin.checkpoint_sha256.3": "abc",
        "gomin.precision.3": "fp16",
        "gomin.parity.3": "passed",
    }
    model = describe_model(ModelInfo("my model", (2, 3), parameters, 8))

    assert model["kind"] == "diffusion"
    assert (model["sample_rate"], model["hop_length"], model["halo_frames"]) == (22050, 200, 13)
    assert model["mel"] == {"n_mels": 80, "n_fft": 1024, "win_length": 800, "f_min": 0.0, "f_max": 11025.0}
    assert model["limits"] == {"max_batch_size": 8, "max_frames": 777}
    assert model["num_diffusion_steps"] == 50
    assert model["sampling"]["default"] == {
        "sampler": "ddim",
        "steps": 9,
        "schedule": "linear",
        "eta": 0.5,
        "timesteps": None,
    }
    assert "fast" in [sampler["name"] for sampler in model["sampling"]["samplers"]]
    assert "cosine" in model["sampling"]["schedules"]
    unknown, known = model["versions"]
    unset = ("checkpoint_sha256", "source", "precision", "parity", "operators", "operators_sha256")
    assert unknown == {"version": 2, **dict.fromkeys(unset)}
    assert known == {
        "version": 3, "checkpoint_sha256": "abc", "source": None, "precision": "fp16", "parity": "passed",
        "operators": None, "operators_sha256": None,
    }  # fmt: skip
    assert model["example"]["path"] == "/v2/models/my%20model/infer"


def test_an_ensemble_passes_the_chain_on() -> None:
    parameters = {**DIFFUSION, "gomin.kind": "reconstruct_diffusion"}

    sampling = describe_model(ModelInfo("ensemble", (1,), parameters, 0))["sampling"]

    assert sampling["default"] is None
    assert "fast" in [sampler["name"] for sampler in sampling["samplers"]]


def test_models_of_others_have_a_problem() -> None:
    for parameters, words in (
        ({}, "not a GOMIN model"),
        ({**DIFFUSION, "gomin.sampler": "best"}, "sampler 'best'"),
        ({**DIFFUSION, "gomin.steps": "x"}, "not a number"),
    ):
        model = describe_model(ModelInfo("other", (1,), parameters, 0))

        assert set(model) == {"name", "versions", "problem"}
        assert (model["name"], model["versions"]) == ("other", [{"version": 1}])
        assert words in model["problem"]


def test_a_transport_need_not_know_its_server() -> None:
    model = MockModel.vocoder(lambda mel: np.zeros((len(mel), 256), np.float32))

    found = describe(MockTransport({"gomin_gan": model}))

    assert found["server"] is None
    assert [model["name"] for model in found["models"]] == ["gomin_gan"]


def test_a_server_may_keep_its_version_to_itself() -> None:
    closed = Reply(b'{"error": "This API is restricted, expecting header: admin"}', status=403)
    with http_server(lambda _: silence(1), {"/v2": closed}) as url, connect(url) as transport:
        found = describe(transport)

    assert found["server"] is None
    assert found["models"][0]["kind"] == "gan"


@pytest.mark.parametrize("body", [b"[]", b"{}", b"<html>"])
def test_a_version_that_is_no_answer(body: bytes) -> None:
    with (
        http_server(lambda _: silence(1), {"/v2": Reply(body)}) as url,
        connect(url) as transport,
        pytest.raises(ServerError, match="is not a Triton server"),
    ):
        describe(transport)
