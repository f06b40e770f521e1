"""TensorRT in config.pbtxt: shapes, caches, number formats; no GPU runs here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from gomin_client.errors import UsageError
from gomin_export.errors import RepositoryError
from gomin_export.repository import place as placing
from gomin_export.repository.config import Deployment, config_text
from tests.export.repository.test_config import CONTRACTS, SERVED, parameter, parse
from tests.export.repository.test_place import DEFAULTS, GAN, place


def tensorrt(model: str, **settings: Any) -> tuple[Any, dict[str, str]]:
    """The parsed config.pbtxt, and TensorRT's parameters in it."""
    config = parse(model, Deployment(accelerator="tensorrt", **settings))
    accelerator, cuda = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, cuda.name, dict(cuda.parameters)) == ("tensorrt", "cuda", {"use_tf32": "0"})
    return config, dict(accelerator.parameters)


def test_tensorrt_takes_every_shape_that_a_request_may_have() -> None:
    """Names of parameters: README of triton-inference-server/onnxruntime_backend, r24.10."""
    config, parameters = tensorrt("gomin_gan")

    assert parameters == {
        "precision_mode": "FP32",
        "trt_profile_min_shapes": "mel:1x128x1",
        "trt_profile_opt_shapes": "mel:4x128x512",
        "trt_profile_max_shapes": "mel:16x128x512",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/var/cache/gomin_tensorrt",
    }
    assert (config.max_batch_size, parameter(config, "gomin.max_frames")) == (16, "512")


def test_tensorrt_has_a_shape_for_each_input() -> None:
    """All inputs have a dynamic batch axis: ONNX Runtime refuses a profile that lacks one of them."""
    config, parameters = tensorrt("gomin_denoiser", max_batch_size=3, tile_frames=100)

    assert parameters["trt_profile_min_shapes"] == "signal:1x1x256,timestep:1x1,mel:1x80x1"
    assert parameters["trt_profile_opt_shapes"] == "signal:3x1x25600,timestep:3x1,mel:3x80x100"
    assert parameters["trt_profile_max_shapes"] == "signal:3x1x25600,timestep:3x1,mel:3x80x100"
    assert {name.partition(":")[0] for name in parameters["trt_profile_max_shapes"].split(",")} == {
        tensor.name for tensor in config.input
    }
    assert parameter(config, "gomin.max_frames") == "100"  # a chain's calls have no more frames


def test_the_shapes_of_tensorrt_follow_the_bounds_of_requests() -> None:
    settings = {"max_batch_size": 2, "max_frames": 900, "tensorrt_opt": (1, 300), "tensorrt_cache": "/var/engines"}

    config, parameters = tensorrt("gomin_gan", **settings)

    shapes = [parameters[f"trt_profile_{kind}_shapes"] for kind in ("min", "opt", "max")]
    assert shapes == ["mel:1x128x1", "mel:1x128x300", "mel:2x128x900"]
    assert parameters["trt_engine_cache_path"] == "/var/engines"
    assert parameter(config, "gomin.max_frames") == "900"


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        ("gomin_gan", {"tensorrt_opt": (17, 9)}, "17x9: the largest shape is 16x512; see --max-batch-size and --max-f"),
        ("gomin_denoiser", {"tensorrt_opt": (1, 600)}, "1x600: the largest shape is 16x512; .* --tile-frames"),
        ("gomin_gan", {"warm_up": [(2, 300)]}, "--warm-up 2x300: gomin_gan takes at most 512 frames"),
    ],
)
def test_shapes_beyond_those_of_tensorrt(model: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        tensorrt(model, **settings)


def test_a_model_with_a_smaller_bound_keeps_it_with_tensorrt() -> None:
    small = replace(CONTRACTS["gomin_gan"], max_frames=200)
    text = config_text(SERVED["gomin_gan"], small, Deployment(accelerator="tensorrt"))

    assert '"mel:16x128x200"' in text
    assert "mel:4x128x200" in text
    assert Deployment(accelerator="tensorrt").batch == 16


def test_a_chain_takes_any_length_with_tensorrt() -> None:
    """Its denoiser gets tiles."""
    contract = replace(CONTRACTS["gomin_diffusion"], max_frames=9000)
    text = config_text(SERVED["gomin_diffusion"], contract, Deployment(accelerator="tensorrt"))

    assert parameter(text_format.Parse(text, ModelConfig()), "gomin.max_frames") == "9000"
    assert "execution_accelerators" not in text


def test_tensorrt_does_not_round_float32_models(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa", deployment=Deployment(accelerator="tensorrt"))
    path = home / "gomin_gan/config.pbtxt"

    def choose(precision: str) -> str | None:
        text = config_text(SERVED["gomin_gan"], GAN, DEFAULTS)
        return placing.choose_config(home, "gomin_gan", text, DEFAULTS, precision, overwrite=False)

    assert choose("fp32") is choose("fp16") is None
    path.write_text(path.read_text().replace('"precision_mode" value: "FP32"', '"precision_mode" value: "FP16"'))
    assert choose("fp16") is None
    with pytest.raises(RepositoryError, match="precision_mode FP16 for all versions, but this version is fp32"):
        choose("fp32")


def test_settings_of_tensorrt_that_differ_are_refused(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa", deployment=Deployment(accelerator="tensorrt", tensorrt_cache="/var/engines"))

    same = Deployment(accelerator="tensorrt", tensorrt_cache="/var/engines", tensorrt_opt=(4, 512))
    assert place(home, [GAN], "bb", deployment=same) == 2
    with pytest.raises(RepositoryError, match=r"tensorrt_cache is /var/engines, asked for /other"):
        place(home, [GAN], "cc", deployment=Deployment(accelerator="tensorrt", tensorrt_cache="/other"))
    with pytest.raises(RepositoryError, match="tensorrt_opt is mel:4x128x512, asked for mel:1x128x512"):
        place(home, [GAN], "cc", deployment=Deployment(accelerator="tensorrt", tensorrt_opt=(1, 512)))
