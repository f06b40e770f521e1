import copy
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from gomin_client import contract
from gomin_client.contract import ModelContract
from gomin_client.model_repository import read_config
from gomin_export import onnx_export, parity
from gomin_export.checkpoints import checkpoint_sha256
from gomin_export.errors import ParityError
from gomin_export.networks import DiffusionWrapper, GomiGAN
from tests.support import BIN, DEMO_CHECKPOINT, GOLDEN, ROOT, assert_fails, run

ONNX_MODELS = [contract.GAN_MODEL, contract.DENOISER_MODEL]


def onnx_file(repository: Path, model: str) -> Path:
    return repository / model / "1" / "model.onnx"


def test_the_repository_holds_complete_models_and_nothing_else(repository: Path) -> None:
    files = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}  # Triton's Python backend leaves it there

    assert files == {
        "gomin_gan/config.pbtxt",
        "gomin_gan/1/model.onnx",
        "gomin_denoiser/config.pbtxt",
        "gomin_denoiser/1/model.onnx",
        "gomin_diffusion/config.pbtxt",
        "gomin_diffusion/1/model.py",
        "gomin_diffusion/1/sampling.py",
    }
    assert [path.name for path in repository.parent.iterdir()] == [repository.name]  # no staging left


@pytest.mark.parametrize("model", ONNX_MODELS)
def test_the_native_backend_can_load_it(repository: Path, model: str) -> None:
    """Triton 24.10's onnxruntime backend: IR ≤ 10, opset ≤ 21, one file, ranks known, a free batch axis first."""
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


def test_models_describe_themselves(repository: Path, demo_gan: GomiGAN) -> None:
    parameters = read_config(repository / "gomin_gan" / "config.pbtxt")
    described = ModelContract.from_parameters("gomin_gan", parameters)
    metadata = {prop.key: prop.value for prop in onnx.load(onnx_file(repository, "gomin_gan")).metadata_props}

    assert described.kind == "gan"
    assert described.mel == demo_gan.mel_config
    assert described.halo_frames == demo_gan.halo_frames
    assert described.checkpoint_sha256 == {1: checkpoint_sha256(DEMO_CHECKPOINT)}
    assert metadata["gomin.checkpoint_sha256"] == checkpoint_sha256(DEMO_CHECKPOINT)
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


@pytest.fixture(scope="module")
def exported(tiny_gan: GomiGAN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parity") / "model.onnx"
    onnx_export.export_gan(tiny_gan, path, {"gomin.kind": "gan"})
    return path


class TestParityGate:
    def test_passes_for_the_network_itself(self, tiny_gan: GomiGAN, exported: Path) -> None:
        cases = parity.check_gan(tiny_gan, exported)

        assert len(cases) == 12
        assert all(case.max_abs_error <= 1e-5 for case in cases)
        assert any(case.max_abs_error > 0 for case in cases)  # float64 is another computation

    def test_catches_one_perturbed_weight(self, tiny_gan: GomiGAN, exported: Path) -> None:
        other = copy.deepcopy(tiny_gan)
        other.resblocks[3].convs2[1].weight[0, 0, 1] += 0.01

        with pytest.raises(ParityError, match=r"differs from PyTorch in \d+ of 12 cases; the worst is batch"):
            parity.check_gan(other, exported)

    def test_catches_nan(self, tiny_gan: GomiGAN, exported: Path, tmp_path: Path) -> None:
        broken = onnx.load(exported)
        bias = next(tensor for tensor in broken.graph.initializer if tensor.name.endswith("conv_post.bias"))
        bias.raw_data = np.array([np.nan], np.float32).tobytes()
        onnx.save(broken, tmp_path / "broken.onnx")

        with pytest.raises(ParityError, match="off by nan"):
            parity.check_gan(tiny_gan, tmp_path / "broken.onnx")

    def test_catches_a_renamed_tensor(self, tiny_gan: GomiGAN, exported: Path, tmp_path: Path) -> None:
        renamed = onnx.load(exported)
        for node in renamed.graph.node:
            node.output[:] = ["waveform" if name == "audio" else name for name in node.output]
        renamed.graph.output[0].name = "waveform"
        onnx.save(renamed, tmp_path / "renamed.onnx")

        with pytest.raises(ParityError, match=r"has the tensors \['mel', 'waveform'\]; expected \['audio', 'mel'\]"):
            parity.check_gan(tiny_gan, tmp_path / "renamed.onnx")

    def test_catches_a_frozen_axis(self, tiny_gan: GomiGAN, exported: Path, tmp_path: Path) -> None:
        frozen = onnx.load(exported)
        frozen.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 12
        onnx.save(frozen, tmp_path / "frozen.onnx")

        with pytest.raises(ParityError, match="expected tensor"):
            parity.check_gan(tiny_gan, tmp_path / "frozen.onnx")


def test_a_failed_gate_leaves_the_repository_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gomin_export import pipeline

    monkeypatch.setattr(parity, "OWN_ERRORS", 0)
    monkeypatch.setattr(parity.check_denoiser, "__defaults__", (1e-12,))  # a tolerance that float32 cannot meet

    with pytest.raises(ParityError, match="Nothing was placed"):
        pipeline.export_diffusion(GOLDEN / "diffusion_small.pt", tmp_path / "models")

    assert list(tmp_path.iterdir()) == []


def test_without_torch_the_way_out_is_named(tmp_path: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; import gomin_export.cli as cli; cli.main()"

    result = run("python", "-c", program, "gan", "--ckpt", DEMO_CHECKPOINT, cwd=tmp_path)

    assert_fails(result, 2, "export needs the package torch: pip install 'gomin-triton[export]'")


def test_from_an_installed_wheel_outside_the_source_tree(tmp_path: Path) -> None:
    """Builds the wheel, unpacks it as pip would, and runs the installed copy with the source tree out of reach."""
    built = run("pip", "wheel", ROOT, "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    main = "import gomin_export.cli as cli; assert cli.__file__.startswith({site!r}), cli.__file__; cli.main()"
    env = {"PYTHONPATH": str(site), "PATH": str(BIN)}

    checkpoint = GOLDEN / "diffusion_small.pt"
    result = run("python", "-c", main.format(site=str(site)), "diffusion", "--ckpt", checkpoint, cwd=elsewhere, env=env)

    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["model_repository/gomin_denoiser/1", "model_repository/gomin_diffusion/1"]
    assert (elsewhere / "model_repository/gomin_diffusion/1/sampling.py").is_file()
    assert "largest difference" in result.stderr
    assert (site / "gomin_server/backends/onnxruntime/model.py").is_file()
