"""gomin-export verify, against repositories on disk and real servers."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from gomin_export.cli import app
from gomin_export.errors import RepositoryError
from gomin_export.verify import RecordedReference
from tests.support import GOLDEN, SHARED_GAN, RunningServer, assert_fails, free_ports, invoke, run, serving


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "copy"))


def swap_model(repository: Path) -> None:
    """Another model of the same shapes in gomin_gan/1: one weight differs."""
    path = repository / "gomin_gan/1/model.onnx"
    model = onnx.load(path)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "conv_post.weight")
    values = np.frombuffer(tensor.raw_data, np.float32).copy()
    values[5] *= 1.1
    tensor.raw_data = values.tobytes()
    onnx.save(model, path)


def lose_precision(repository: Path) -> None:
    """A denoiser with weights in the precision of float16 in gomin_denoiser/1, though config.pbtxt says fp32."""
    path = repository / "gomin_denoiser/1/model.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.raw_data = values.astype(np.float16).astype(np.float32).tobytes()
    onnx.save(model, path)


class TestRepository:
    def test_passes_for_what_was_exported(self, repository: Path) -> None:
        result = invoke(app, "verify", "--repository", repository)

        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        for model in ("gomin_gan", "gomin_denoiser", "gomin_mel", "gomin_mel_diffusion"):
            assert f"{model} version 1: 5 of 5 cases passed" in result.stdout
        assert re.search(r"gomin_mel version 1: 5 of 5 cases passed, .*\(librosa float32: 0\.0e\+00\)", result.stdout)
        assert "gomin_reconstruct version 1: 3 of 3 cases passed" in result.stdout
        assert "gomin_reconstruct_diffusion version 1: 1 of 1 cases passed" in result.stdout
        assert "gomin_diffusion version 1: 1 of 1 cases passed" in result.stdout

    def test_against_the_checkpoint_itself(self, repository: Path) -> None:
        result = invoke(app, "verify", "--repository", repository, "--ckpt", SHARED_GAN, "--json")

        assert result.returncode == 0, result.stderr
        reports = [(report["model"], report["passed"], len(report["cases"])) for report in json.loads(result.stdout)]
        assert reports == [("gomin_gan version 1", True, 20), ("gomin_reconstruct version 1", True, 3)]

    def test_needs_no_torch(self, repository: Path) -> None:
        program = "import sys; sys.modules['torch'] = None; import gomin_export.cli as cli; cli.main()"

        result = run("python", "-c", program, "verify", "--repository", repository, "--model", "gan")

        assert result.returncode == 0, result.stderr

    def test_catches_a_swapped_model(self, copy: Path) -> None:
        swap_model(copy)

        result = invoke(app, "verify", "--repository", copy)

        assert_fails(result, 4, "2 of 7 models failed; gomin_gan version 1")  # and the ensemble that calls it
        assert "model.onnx" in result.stdout
        assert "is not the file that was exported" in result.stdout
        assert result.stdout.count(" FAIL") > 1  # and it answers something else

    def test_catches_a_swapped_model_that_keeps_the_values(self, copy: Path) -> None:
        with (copy / "gomin_diffusion/1/sampling/ddim.py").open("a") as file:
            file.write("# edited\n")

        result = invoke(app, "verify", "--repository", copy, "--model", "diffusion")

        assert_fails(result, 4, "gomin_diffusion version 1: sampling/ddim.py: is not the file that was exported")

    @pytest.mark.parametrize(
        ("file", "failed"),
        [
            ("gomin_gan/1/model.onnx", 2),  # with the ensemble that calls it
            ("gomin_diffusion/1/model.py", 1),
            ("gomin_diffusion/1/sampling/ddim.py", 1),
            ("gomin_mel_diffusion/1/model.onnx", 2),
        ],
    )
    def test_catches_a_missing_file(self, copy: Path, file: str, failed: int) -> None:
        (copy / file).unlink()

        result = invoke(app, "verify", "--repository", copy)

        assert_fails(result, 4, f"{failed} of 7 models failed")
        assert f"{Path(file).name}" in result.stdout
        assert "is missing" in result.stdout

    def test_catches_a_missing_config_and_another_contract(self, copy: Path) -> None:
        (copy / "gomin_gan/config.pbtxt").unlink()
        config = copy / "gomin_diffusion/config.pbtxt"
        halo = 'halo_frames" value: { string_value: "'
        config.write_text(config.read_text().replace(halo, halo + "9"))

        result = invoke(app, "verify", "--repository", copy)

        assert_fails(result, 4, "3 of 7 models failed")  # and the ensemble of the GAN
        assert "has no model gomin_gan" in result.stdout
        assert "an ensemble calls gomin_gan" in result.stdout
        assert "gomin.halo_frames" in result.stdout

    def test_is_not_bothered_by_a_model_of_somebody_else(self, copy: Path) -> None:
        (copy / "other/1").mkdir(parents=True)
        (copy / "other/config.pbtxt").write_bytes(b"\xff a_field_of_the_future: 1")

        result = invoke(app, "verify", "--repository", copy)

        assert result.returncode == 0, result.stderr

    def test_an_older_version_can_be_verified(self, copy: Path) -> None:
        shutil.copytree(copy / "gomin_gan/1", copy / "gomin_gan/2")

        older = invoke(app, "verify", "--repository", copy, "--model", "gan", "--version", "1")
        newest = invoke(app, "verify", "--repository", copy, "--model", "gan")

        assert older.returncode == 0, older.stderr
        assert_fails(newest, 4, "gomin_gan version 2: checkpoint_sha256: is not recorded")

    def test_catches_another_checkpoint(self, repository: Path, tmp_path: Path) -> None:
        with (tmp_path / "other.pt").open("wb") as file:
            file.write(SHARED_GAN.read_bytes() + b"\0")  # the same tensors in another file

        result = invoke(app, "verify", "--repository", repository, "--ckpt", tmp_path / "other.pt")

        assert_fails(result, 4, "checkpoint_sha256: is ", "; expected ")

    def test_catches_another_precision_than_expected(self, repository: Path) -> None:
        result = invoke(app, "verify", "--repository", repository, "--model", "gan", "--precision", "fp16")

        assert_fails(result, 4, "precision: is fp32; expected fp16")

    def test_catches_a_model_that_cannot_be_loaded(self, copy: Path) -> None:
        (copy / "gomin_gan/1/model.onnx").write_bytes(b"not a model")

        assert_fails(invoke(app, "verify", "--repository", copy), 4, "gomin_gan version 1")

    @pytest.mark.parametrize("file", ["reference.npz", "parity.json"])
    @pytest.mark.parametrize("content", [None, b"", b"damaged", b"{}", b'{"tolerance": {"atol": "a"}, "cases": []}'])
    def test_says_what_to_do_without_records(self, copy: Path, file: str, content: bytes | None) -> None:
        path = copy / "gomin_gan/1" / file
        path.unlink() if content is None else path.write_bytes(content)

        with pytest.raises(RepositoryError, match=f"{file}: .*give --ckpt"):
            RecordedReference(copy).expectation("gomin_gan")

    def test_records_without_vectors_are_damaged(self, copy: Path) -> None:
        np.savez(copy / "gomin_gan/1/reference.npz")

        result = invoke(app, "verify", "--repository", copy, "--model", "gan")

        assert_fails(result, 1, "reference.npz: is damaged", "it holds no vectors", "give --ckpt")

    def test_bad_arguments_are_usage_errors(self, repository: Path, tmp_path: Path) -> None:
        assert_fails(
            invoke(app, "verify", "--repository", repository, "--model", "nope"),
            2,
            "--model nope: the exports to compare with are of gomin_denoiser",
        )
        assert_fails(invoke(app, "verify", "--repository", tmp_path), 1, "has no models")
        assert_fails(invoke(app, "verify", "--repository", repository, "--version", "9"), 1, "no version 9")
        both = ("--url", "localhost", "--ckpt", SHARED_GAN, "--repository", repository)
        assert_fails(invoke(app, "verify", *both), 2, "give one of the two")


@pytest.fixture(scope="module")
def bad_server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real server with other models than its repository claims."""
    home = tmp_path_factory.mktemp("bad")
    shutil.copytree(repository, home / "models")
    swap_model(home / "models")
    lose_precision(home / "models")
    with serving(home / "models", home / "log") as running:
        yield running


@pytest.mark.server
@pytest.mark.slow
class TestServer:
    @pytest.mark.parametrize("protocol", ["grpc", "http"])
    def test_passes_for_what_was_exported(self, server: RunningServer, repository: Path, protocol: str) -> None:
        url = getattr(server, protocol)

        result = invoke(app, "verify", "--url", url, "--repository", repository)

        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stdout.count("cases passed") == 7

    @pytest.mark.parametrize("checkpoint", [SHARED_GAN, GOLDEN / "diffusion_small.pt"])
    def test_against_the_checkpoint_itself(self, server: RunningServer, checkpoint: Path) -> None:
        result = invoke(app, "verify", "--url", server.grpc, "--ckpt", checkpoint)

        assert result.returncode == 0, result.stdout + result.stderr
        assert "20 of 20 cases passed" in result.stdout

    def test_catches_a_swapped_model(self, bad_server: RunningServer, repository: Path) -> None:
        arguments = ("verify", "--url", bad_server.grpc, "--model", "gan")

        recorded = invoke(app, *arguments, "--repository", repository)
        computed = invoke(app, *arguments, "--ckpt", SHARED_GAN)

        assert_fails(recorded, 4, f"{bad_server.grpc}: 1 of 1 models failed; gomin_gan version 1", "off by")
        assert_fails(computed, 4, "off by")

    def test_catches_a_wrong_precision(self, bad_server: RunningServer, repository: Path) -> None:
        arguments = ("--url", bad_server.http, "--repository", repository, "--model", "gomin_denoiser")

        assert_fails(invoke(app, "verify", *arguments), 4, "gomin_denoiser version 1", "off by")

    def test_catches_a_stale_version(self, server: RunningServer, copy: Path) -> None:
        for model in ("gomin_gan", "gomin_reconstruct"):
            (copy / model / "1").rename(copy / model / "2")  # as if there had been another export
        arguments = ("verify", "--url", server.grpc, "--repository", copy)

        result = invoke(app, *arguments)
        as_json = json.loads(invoke(app, *arguments, "--model", "gan", "--json").stdout)

        problem = "deployed: version 2 is not available; available: 1"
        assert_fails(
            result, 3, f"2 of 7 models failed; gomin_gan: {problem}; failed too: gomin_reconstruct. ", "restart"
        )
        assert f"\n{problem}  FAIL\n" in result.stdout
        assert [report["deployed"] for report in as_json] == [False]

    def test_a_difference_counts_more_than_a_missing_version(self, bad_server: RunningServer, copy: Path) -> None:
        (copy / "gomin_mel/1").rename(copy / "gomin_mel/2")

        result = invoke(app, "verify", "--url", bad_server.grpc, "--repository", copy)

        assert_fails(result, 4, "gomin_denoiser version 1", "failed too: ", "gomin_mel")

    def test_catches_a_missing_model(self, server: RunningServer, copy: Path) -> None:
        (copy / "gomin_gan").rename(copy / "gomin_gan_large")
        config = copy / "gomin_gan_large/config.pbtxt"
        config.write_text(config.read_text().replace('name: "gomin_gan"', 'name: "gomin_gan_large"'))

        result = invoke(app, "verify", "--url", server.grpc, "--repository", copy, "--model", "gomin_gan_large")

        assert_fails(result, 3, "deployed: ", "has no model gomin_gan_large")

    def test_catches_a_model_that_does_not_load(self, copy: Path, repository: Path, tmp_path: Path) -> None:
        (copy / "gomin_gan/1/model.onnx").write_bytes(b"not a model")

        with serving(copy, tmp_path / "log", "--exit-on-error=false", "--strict-readiness=false") as running:
            result = invoke(app, "verify", "--url", running.grpc, "--repository", repository)

        assert_fails(result, 3, "2 of 7 models failed; gomin_gan: deployed: ", "model gomin_gan is not ready")
        assert "gomin_diffusion version 1: 1 of 1 cases passed" in result.stdout

    def test_no_server_is_status_3(self, repository: Path) -> None:
        url = f"grpc://127.0.0.1:{free_ports(1)[0]}"

        assert_fails(invoke(app, "verify", "--url", url, "--repository", repository), 3, url)
