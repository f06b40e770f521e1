"""Exported files: complete, loadable by Triton, true to the network."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from gomin_client.contract import model as contract
from gomin_client.contract.model import ModelContract
from gomin_client.contract.repository import read_config
from gomin_export.networks import DiffusionWrapper, GomiGAN
from gomin_export.parity.record import sha256
from gomin_export.repository.fingerprint import sampling_modules
from tests.support import ROOT, SHARED_GAN

ONNX_MODELS = [contract.GAN_MODEL, contract.DENOISER_MODEL]
RECORDED = ("config.pbtxt", "1/parity.json", "1/reference.npz")


def onnx_file(repository: Path, model: str) -> Path:
    return repository / model / "1" / "model.onnx"


def test_the_repository_holds_complete_models_and_nothing_else(repository: Path) -> None:
    files = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}

    assert files == {
        "gomin_gan/config.pbtxt",
        "gomin_gan/1/model.onnx",
        "gomin_gan/1/parity.json",
        "gomin_gan/1/reference.npz",
        "gomin_denoiser/config.pbtxt",
        "gomin_denoiser/1/model.onnx",
        "gomin_denoiser/1/parity.json",
        "gomin_denoiser/1/reference.npz",
        "gomin_diffusion/config.pbtxt",
        "gomin_diffusion/1/model.py",
        "gomin_diffusion/1/__pycache__",  # a file: no bytecode
        *(f"gomin_diffusion/1/sampling/{path.name}" for path in sampling_modules()),
        "gomin_diffusion/1/sampling/__pycache__",
        "gomin_diffusion/1/parity.json",
        "gomin_diffusion/1/reference.npz",
        *(f"{model}/{name}" for model in ("gomin_mel", "gomin_mel_diffusion") for name in (*RECORDED, "1/model.onnx")),
        *(f"{model}/{name}" for model in ("gomin_reconstruct", "gomin_reconstruct_diffusion") for name in RECORDED),
    }
    assert not list(repository.parent.glob(".*"))  # no staging left


@pytest.mark.parametrize("model", ONNX_MODELS)
def test_the_native_backend_can_load_it(repository: Path, model: str) -> None:
    """Triton 24.10's onnxruntime backend: IR ≤ 10, opset ≤ 21, ranks known, a free batch axis first."""
    proto = onnx.load(onnx_file(repository, model), load_external_data=False)

    assert proto.ir_version <= 10
    assert {opset.domain: opset.version for opset in proto.opset_import}[""] <= 21
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert {opset.domain for opset in proto.opset_import if opset.domain} == set()
    onnx.checker.check_model(proto, full_check=True)
    for tensor in (*proto.graph.input, *proto.graph.output):
        assert tensor.type.tensor_type.HasField("shape"), tensor.name
        assert tensor.type.tensor_type.shape.dim[0].dim_param, tensor.name


@pytest.mark.parametrize("model", ONNX_MODELS)
def test_config_and_onnx_agree_on_the_tensors(repository: Path, model: str) -> None:
    config = text_format.Parse((repository / model / "config.pbtxt").read_text(), ModelConfig())
    session = onnxruntime.InferenceSession(onnx_file(repository, model), providers=["CPUExecutionProvider"])

    assert config.max_batch_size > 1
    for ours, theirs in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        sizes = {tensor.name: [size if isinstance(size, int) else -1 for size in tensor.shape[1:]] for tensor in theirs}
        assert {tensor.name: list(tensor.dims) for tensor in ours} == sizes


@pytest.mark.parametrize("model", ONNX_MODELS)
def test_no_path_of_the_exporting_machine_is_inside(repository: Path, model: str) -> None:
    content = onnx_file(repository, model).read_bytes()

    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content


def test_models_describe_themselves(repository: Path, shared_gan: GomiGAN) -> None:
    parameters = read_config(repository / "gomin_gan" / "config.pbtxt")
    described = ModelContract.from_parameters("gomin_gan", parameters)
    metadata = {prop.key: prop.value for prop in onnx.load(onnx_file(repository, "gomin_gan")).metadata_props}

    assert described.kind == "gan"
    assert described.mel == shared_gan.mel_config
    assert described.halo_frames == shared_gan.halo_frames
    assert described.provenance[1].checkpoint_sha256 == sha256(SHARED_GAN)
    assert described.provenance[1].precision == "fp32"
    assert described.provenance[1].parity.startswith("21 of 21 cases passed, max abs error ")
    assert metadata["gomin.checkpoint_sha256"] == sha256(SHARED_GAN)
    assert metadata["gomin.precision"] == "fp32"
    assert described.to_parameters().items() <= metadata.items()
    assert set(described.to_parameters()) == {
        f"gomin.{name}"
        for name in [
            "kind",
            "sample_rate",
            "n_fft",
            "win_length",
            "hop_length",
            "n_mels",
            "f_min",
            "f_max",
            "halo_frames",
        ]
    }


def test_diffusion_models_tell_their_steps(repository: Path) -> None:
    for model, kind in (("gomin_denoiser", "denoiser"), ("gomin_diffusion", "diffusion")):
        described = ModelContract.from_parameters(model, read_config(repository / model / "config.pbtxt"))
        assert (described.kind, described.num_diffusion_steps) == (kind, 50)


def test_a_timestep_out_of_range_gets_nan_and_its_neighbours_what_is_theirs(
    repository: Path, small_diffusion: DiffusionWrapper
) -> None:
    rng = np.random.default_rng(1)
    signal = rng.standard_normal((5, 1, 512)).astype(np.float32)
    timestep = np.array([[-1], [7], [50], [np.nan], [49]], np.float32)
    mel = rng.uniform(0, 1, (5, 32, 2)).astype(np.float32)
    session = onnxruntime.InferenceSession(onnx_file(repository, "gomin_denoiser"), providers=["CPUExecutionProvider"])

    (noise,) = session.run(["noise"], {"signal": signal, "timestep": timestep, "mel": mel})

    assert np.isnan(noise[[0, 2, 3]]).all()
    expected = small_diffusion.model(*map(torch.from_numpy, (signal[[1, 4]], timestep[[1, 4], 0], mel[[1, 4]])))
    np.testing.assert_allclose(noise[[1, 4]], expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (4, 3), (2, 101)])
def test_denoiser_takes_any_batch_and_length(
    repository: Path, small_diffusion: DiffusionWrapper, batch: int, frames: int
) -> None:
    rng = np.random.default_rng(1)
    signal = rng.standard_normal((batch, 1, 256 * frames)).astype(np.float32)
    timestep = rng.uniform(0, 49, (batch, 1)).astype(np.float32)
    mel = rng.uniform(0, 1, (batch, 32, frames)).astype(np.float32)
    session = onnxruntime.InferenceSession(onnx_file(repository, "gomin_denoiser"), providers=["CPUExecutionProvider"])

    (noise,) = session.run(["noise"], {"signal": signal, "timestep": timestep, "mel": mel})

    expected = small_diffusion.model(*map(torch.from_numpy, (signal, timestep[:, 0], mel)))
    np.testing.assert_allclose(noise, expected.numpy(), rtol=0, atol=1e-5)
