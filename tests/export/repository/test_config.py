"""config.pbtxt: what the options write there, and that a real server takes it."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup, ModelQueuePolicy

from gomin_client.contract.model import ModelContract, Provenance
from gomin_client.contract.signatures import SIGNATURES
from gomin_client.errors import UsageError
from gomin_client.mel.features import MelConfig
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.transports.registry import connect
from gomin_export.cli import app
from gomin_export.networks import registry
from gomin_export.networks.served import MEMORY_BUDGET
from gomin_export.repository.bounds import front_end_frames
from gomin_export.repository.config import Deployment, config_text, with_provenance, without_provenance
from tests.support import GOLDEN, invoke, serving

SERVED = {model.name: model for known in (registry.GAN, registry.DIFFUSION) for model in known.models}
FRONT_END_FRAMES = front_end_frames(MelConfig())
CONTRACTS = {
    "gomin_gan": ModelContract("gan", MelConfig(), 32),
    "gomin_denoiser": ModelContract("denoiser", MelConfig(n_mels=80), 13, 50),
    "gomin_diffusion": ModelContract("diffusion", MelConfig(n_mels=80), 13, 50),
    "gomin_diffusion_stream": ModelContract("diffusion_stream", MelConfig(n_mels=80), 13, 50),
    "gomin_mel": ModelContract("mel", MelConfig(), 0, max_frames=FRONT_END_FRAMES),
    "gomin_reconstruct": ModelContract("reconstruct", MelConfig(), 32),
    "gomin_reconstruct_diffusion": ModelContract("reconstruct_diffusion", MelConfig(), 13, 50),
}
ENSEMBLES = [("gomin_gan", "gomin_reconstruct"), ("gomin_diffusion", "gomin_reconstruct_diffusion")]


def parse(model: str, deployment: Deployment) -> Any:
    text = config_text(SERVED[model], CONTRACTS[model], deployment)
    assert text.isascii()
    return text_format.Parse(text, ModelConfig())


def parameter(config: Any, name: str) -> str:
    return str(config.parameters[name].string_value)


@pytest.mark.parametrize("model", ["gomin_gan", "gomin_denoiser"])
def test_sensible_defaults(model: str) -> None:
    config = parse(model, Deployment())

    assert config.max_batch_size == 16
    assert config.dynamic_batching.max_queue_delay_microseconds == {"gomin_gan": 0, "gomin_denoiser": 500}[model]
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, ModelInstanceGroup.KIND_AUTO)
    (warm_up,) = config.model_warmup
    assert warm_up.batch_size == 1  # 0, Triton's default, would skip it
    assert {name: list(value.dims) for name, value in warm_up.inputs.items()}["mel"][1] == 64
    assert set(warm_up.inputs) == {tensor.name for tensor in config.input}
    assert parameter(config, "cudnn_conv_algo_search") == "1"
    (cuda,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (cuda.name, dict(cuda.parameters)) == ("cuda", {"use_tf32": "0"})


@pytest.mark.parametrize("model", SERVED)
def test_tensors_are_those_of_the_kind_and_explained(model: str) -> None:
    text = config_text(SERVED[model], CONTRACTS[model], Deployment())
    config = parse(model, Deployment())
    signature = SIGNATURES[CONTRACTS[model].kind]

    for written, tensors in ((config.input, signature.inputs), (config.output, signature.outputs)):
        found = [(entry.name, entry.data_type, list(entry.dims), "optional: true" in str(entry)) for entry in written]
        assert found == [
            (
                tensor.name,
                DataType.Value(f"TYPE_{tensor.datatype}"),
                tensor.shape(CONTRACTS[model])[config.max_batch_size > 0 :],  # dims have a batch axis without one
                tensor.is_optional,
            )
            for tensor in tensors
        ]
    for tensor in signature.tensors:
        entry = f'  {{ name: "{tensor.name}" data_type'
        (comment,) = re.findall(rf"((?:^  # .*\n)+){re.escape(entry)}", text, re.MULTILINE)
        unit, meaning = tensor.words(CONTRACTS[model])
        words = " ".join(comment.replace("  # ", " ").split())
        assert words == f"{tensor.name} {tensor.layout(CONTRACTS[model])}: {meaning}. Unit: {unit}"
    assert max(map(len, text.splitlines())) <= 200


@pytest.mark.parametrize("model", ["gomin_gan", "gomin_denoiser", "gomin_diffusion", "gomin_diffusion_stream"])
def test_queues_and_requests_are_bounded(model: str) -> None:
    # without any of the three settings, Triton's batcher needs no waiting instance to pass a request on
    default = (64, 4 * 3600) if model.startswith("gomin_diffusion") else (0, 0)
    for settings, (size, seconds) in ((Deployment(), default), (Deployment(queue_size=9, queue_timeout_s=7), (9, 7))):
        policy = parse(model, settings).dynamic_batching.default_queue_policy
        assert policy.timeout_action == ModelQueuePolicy.REJECT
        assert (policy.max_queue_size, policy.default_timeout_microseconds) == (size, seconds * 1_000_000)
        assert not policy.allow_timeout_override
    one = parse(model, Deployment(queue_timeout_s=7)).dynamic_batching.default_queue_policy
    assert (one.max_queue_size, one.default_timeout_microseconds) == (default[0], 7_000_000)

    def bound(default: int | None, **settings: Any) -> str:
        described = replace(CONTRACTS[model], max_frames=default)
        text = config_text(SERVED[model], described, Deployment(**settings))
        return parameter(text_format.Parse(text, ModelConfig()), "gomin.max_frames")

    assert bound(None) == ""
    assert bound(9000) == "9000"
    assert bound(9000, max_frames=700) == ("9000" if model == "gomin_denoiser" else "700")
    smallest = {
        "gomin_gan": "68",
        "gomin_diffusion": "30",
        "gomin_diffusion_stream": "30",
    }  # windows of more than two halos
    assert bound(9, tile_frames=800) == smallest.get(model, "1600")  # a denoiser takes the calls of two chains
    if model != "gomin_denoiser":
        with pytest.raises(UsageError, match=f"--max-frames 16: {model} has a halo .* at least {smallest[model]}"):
            bound(9000, max_frames=16)


def test_a_front_end_has_its_own_bounds() -> None:
    """Those of its ONNX file, whatever one network is exported with."""
    for settings in (Deployment(), Deployment(queue_size=9, queue_timeout_s=7, max_frames=70, accelerator="tensorrt")):
        config = parse("gomin_mel", settings)
        policy = config.dynamic_batching.default_queue_policy
        assert (policy.max_queue_size, policy.default_timeout_microseconds) == (0, 0)
        assert [group.kind for group in config.instance_group] == [ModelInstanceGroup.KIND_CPU]
        assert parameter(config, "gomin.max_frames") == str(FRONT_END_FRAMES)


@pytest.mark.parametrize(("vocoder", "ensemble"), ENSEMBLES)
def test_an_ensemble_has_the_smaller_bound_of_its_models(vocoder: str, ensemble: str) -> None:
    def bound(default: int, **settings: Any) -> str:
        described = replace(CONTRACTS[ensemble], max_frames=default)
        text = config_text(SERVED[ensemble], described, Deployment(**settings))
        return parameter(text_format.Parse(text, ModelConfig()), "gomin.max_frames")

    assert bound(9000) == "9000"
    assert bound(9000, max_frames=700) == "700"
    assert bound(9000, max_frames=9_000_000) == str(FRONT_END_FRAMES)
    assert bound(9000, accelerator="tensorrt") == ("512" if vocoder == "gomin_gan" else "9000")


def test_no_warm_up_exceeds_the_bound() -> None:
    with pytest.raises(UsageError, match="--warm-up 4x30: gomin_gan takes at most 100 frames in one request"):
        parse("gomin_gan", Deployment(warm_up=[(4, 30)], max_frames=100))
    short = replace(CONTRACTS["gomin_gan"], halo_frames=1)
    text = config_text(SERVED["gomin_gan"], short, Deployment(max_frames=50))
    (warm_up,) = text_format.Parse(text, ModelConfig()).model_warmup
    assert list(warm_up.inputs["mel"].dims) == [128, 50]


def test_the_default_bounds_of_the_released_sizes() -> None:
    """The figures of docs/export.md."""
    from gomin_export.networks.diffusion import DiffusionConfig
    from gomin_export.networks.gan import GANConfig

    assert [MEMORY_BUDGET // config.bytes_per_frame for config in (GANConfig(), DiffusionConfig())] == [
        5461,
        1638,
    ]


@pytest.mark.parametrize("model", ["gomin_gan", "gomin_denoiser"])
def test_every_option_is_written(model: str) -> None:
    config = parse(model, Deployment(4, 2000, 3, "gpu", 8, [(1, 94), (4, 30)], "default", True))

    assert config.max_batch_size == 4
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (3, ModelInstanceGroup.KIND_GPU)
    assert parameter(config, "intra_op_thread_count") == "8"
    assert [(warm_up.batch_size, warm_up.inputs["mel"].dims[1]) for warm_up in config.model_warmup] == [
        (1, 94),
        (4, 30),
    ]
    assert parameter(config, "cudnn_conv_algo_search") == "2"
    assert config.optimization.execution_accelerators.gpu_execution_accelerator[0].parameters["use_tf32"] == "1"


def test_the_chain_takes_as_many_items_as_its_denoiser() -> None:
    assert parse("gomin_diffusion", Deployment(max_batch_size=4)).max_batch_size == 4


def test_the_default_chain_is_the_released_one() -> None:
    config = parse("gomin_diffusion", Deployment())

    values = [parameter(config, f"gomin.{name}") for name in ("sampler", "steps", "schedule", "tile_frames")]
    assert values == ["ddpm", "50", "linear", "512"]
    assert "gomin.eta" not in config.parameters
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, ModelInstanceGroup.KIND_CPU)]
    assert config.HasField("dynamic_batching")


def test_another_default_chain() -> None:
    config = parse("gomin_diffusion", Deployment(sampling=SamplerSettings("ddim", eta=0.5), tile_frames=100))

    values = [parameter(config, f"gomin.{name}") for name in ("sampler", "steps", "schedule", "eta", "tile_frames")]
    assert values == ["ddim", "25", "linear", "0.5", "100"]


@pytest.mark.parametrize(
    ("deployment", "words"),
    [
        (Deployment(sampling=SamplerSettings("ddpm", 20)), "sampler ddpm takes 50"),
        (Deployment(sampling=SamplerSettings("ddpm", eta=0.5)), "only sampler ddim has an eta"),
        (Deployment(tile_frames=26), "tiles of 26 frames: expected more than 26"),
    ],
)
def test_a_chain_that_makes_no_sense(deployment: Deployment, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse("gomin_diffusion", deployment)


def test_no_warm_up() -> None:
    assert not parse("gomin_gan", Deployment(warm_up=[])).model_warmup


@pytest.mark.parametrize(("accelerator", "kind"), [("cuda", "GPU"), ("tensorrt", "GPU"), ("openvino", "CPU")])
def test_an_accelerator_that_is_asked_for_is_not_left_out(accelerator: str, kind: str) -> None:
    """On instances of another kind Triton would run the model without it, silently."""
    (group,) = parse("gomin_gan", Deployment(accelerator=accelerator)).instance_group

    assert group.kind == ModelInstanceGroup.Kind.Value(f"KIND_{kind}")


def test_openvino_is_for_the_cpu() -> None:
    accelerators = parse("gomin_gan", Deployment(accelerator="openvino")).optimization.execution_accelerators

    assert [accelerator.name for accelerator in accelerators.cpu_execution_accelerator] == ["openvino"]
    assert not accelerators.gpu_execution_accelerator


@pytest.mark.parametrize(
    "settings",
    [
        {"max_batch_size": 0},
        {"instances": 0},
        {"tile_frames": 0},
        {"threads": -1},
        {"batch_delay_us": -1},
        {"instance_kind": "tpu"},
        {"cudnn_search": "fast"},
        {"accelerator": "npu"},
        {"warm_up": [(0, 64)]},
        {"warm_up": [(1, 0)]},
        {"warm_up": [(5, 64)], "max_batch_size": 4},
        {"accelerator": "openvino", "instance_kind": "gpu"},
        {"accelerator": "tensorrt", "instance_kind": "cpu"},
        {"accelerator": "cuda", "instance_kind": "auto"},
        {"accelerator": "openvino", "tf32": True},
        {"instance_kind": "cpu", "cudnn_search": "default"},
        {"accelerator": "cuda", "tensorrt_opt": (1, 9)},
        {"tensorrt_cache": "/engines"},
        {"accelerator": "tensorrt", "tensorrt_opt": (1, 0)},
        {"accelerator": "tensorrt", "tensorrt_cache": "engines"},
        {"accelerator": "tensorrt", "tensorrt_cache": '/a"b'},
        {"accelerator": "tensorrt", "tensorrt_cache": "/a\nb"},
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        Deployment(**settings)


def test_provenance_comes_and_goes_by_version() -> None:
    text = config_text(SERVED["gomin_gan"], CONTRACTS["gomin_gan"], Deployment())
    one, ten = Provenance("aa", "fp32", "good"), Provenance("bb", "fp16", "better")

    both = with_provenance(text, {1: one, 10: ten})

    assert Provenance.from_parameters(_parameters(both)) == {1: one, 10: ten}
    assert with_provenance(both, {10: ten}) == with_provenance(text, {10: ten})
    assert without_provenance(both) == text


def _parameters(text: str) -> dict[str, str]:
    return {name: value.string_value for name, value in text_format.Parse(text, ModelConfig()).parameters.items()}


@pytest.mark.server
@pytest.mark.slow
def test_a_server_takes_the_settings(tiny_repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "models"
    shutil.copytree(tiny_repository, home)
    options = ["--max-batch-size", "4", "--batch-delay-us", "500", "--instances", "2", "--threads", "1"]
    options += ["--warm-up", "30", "--warm-up", "4x12", "--cudnn-search", "default", "--overwrite-config"]
    exported = invoke(app, "gan", "--ckpt", GOLDEN / "gan_v3.pt", "--repository", home, *options)
    assert exported.returncode == 0, exported.stderr

    with serving(home, tmp_path / "log", "--log-verbose=1") as server:
        log = server.wait_for_log("Started HTTPService at ")  # after it has loaded its models
        described = connect(server.grpc).describe("gomin_gan")
        verified = invoke(app, "verify", "--url", server.grpc, "--repository", home)  # batches of up to 3

    assert described.max_batch_size == 4
    assert described.versions == (1,)
    assert log.count("intra_op_num_threads 1") == 3  # two instances, and the mel front end
    assert "running warmup sample '4 x 12 frames'" in log or "4 x 12 frames" in log
    assert verified.returncode == 0, verified.stdout


@pytest.mark.server
@pytest.mark.slow
def test_verify_feeds_no_more_than_the_maximum_batch_size(tiny_repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "models"
    shutil.copytree(tiny_repository, home)
    options = ("--max-batch-size", "1", "--overwrite-config")
    invoke(app, "gan", "--ckpt", GOLDEN / "gan_v3.pt", "--repository", home, *options)

    with serving(home, tmp_path / "log") as server:
        verified = invoke(app, "verify", "--url", server.http, "--ckpt", GOLDEN / "gan_v3.pt")

    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "3 × 5 frames" in verified.stdout


def test_dry_run_prints_and_writes_nothing(tiny_repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "models"
    arguments = ("gan", "--ckpt", GOLDEN / "gan_v3.pt", "--repository", home, "--threads", "3", "--dry-run")

    fresh = invoke(app, *arguments)

    assert fresh.returncode == 0, fresh.stderr
    assert f"# {home}/gomin_gan/1: would be made" in fresh.stdout
    assert '"intra_op_thread_count" value: { string_value: "3" }' in fresh.stdout
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "file").touch()
    for impossible in (tmp_path / "file", tmp_path / "file/models"):
        result = invoke(app, *arguments[:4], impossible, "--dry-run")
        assert (result.returncode, result.stdout) == (1, ""), result.stdout
    shutil.copytree(tiny_repository, home)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    again = invoke(app, *arguments, "--overwrite-config", "--version", "3", "--keep", "1")
    assert again.returncode == 0, again.stderr
    assert f"# {home}/gomin_gan/3: would be made" in again.stdout
    assert f"# {home}/gomin_gan/1: would be removed" in again.stdout
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_silence_is_a_real_warm_up_request(tiny_repository: Path) -> None:
    """Zeros, as warm-up sends them, are the mel of silence: the model answers them with finite samples."""
    parameters = connect(f"local:{tiny_repository}").describe("gomin_gan").parameters
    n_mels = int(parameters["gomin.n_mels"])

    answer = connect(f"local:{tiny_repository}").infer("gomin_gan", 1, {"mel": np.zeros((1, n_mels, 64), np.float32)})

    assert np.isfinite(answer["audio"]).all()
