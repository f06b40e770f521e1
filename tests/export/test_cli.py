"""The command line of gomin-export: usage errors, messages and exit status."""

import os
from pathlib import Path

import onnx
import pytest

from gomin_export.cli import app
from tests.support import GOLDEN, SHARED_GAN, assert_fails, invoke, run

pytestmark = pytest.mark.long

CHECKPOINT = GOLDEN / "gan_v3.pt"


def test_a_failure_ends_with_status_4(tmp_path: Path, repository: Path) -> None:
    """Through the command line; the recorded figures are judged anew, so nothing needs to be exported."""
    result = invoke(app, "gan", "--ckpt", SHARED_GAN, "--repository", repository, "--min-snr", "500")

    assert result.returncode == 4
    assert "gomin_gan differs from PyTorch in 21 of 21 cases" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--precision", "int8", "--precision int8: expected fp32 or fp16"),
        ("--atol", "-1", "--atol -1.0: expected 0 or more"),
        ("--atol", "inf", "--atol inf: expected 0 or more"),
        ("--min-snr", "nan", "--min-snr nan: expected a number of dB"),
        ("--max-batch-size", "3000000000", "expected at most 10000000"),
        ("--warm-up", "99999999999999999999", "expected 1 to 10000000 frames"),
        ("--max-batch-size", "0", "--max-batch-size 0: expected at least 1"),
        ("--threads", "-1", "--threads -1: expected at least 0"),
        ("--warm-up", "64x", "--warm-up 64x: expected FRAMES, BATCHxFRAMES, or none"),
        ("--warm-up", "32x64", "--warm-up 32x64: expected 1 to 10000000 frames, and 1 to 16 items"),
        ("--accelerator", "tpu", "--accelerator tpu: expected cuda, tensorrt, openvino"),
        ("--tensorrt-opt", "512", "--tensorrt-opt 512: expected BATCHxFRAMES"),
        ("--tensorrt-opt", "4x64", "--tensorrt-opt has no effect without --accelerator tensorrt"),
        ("--target", "tpu", "--target tpu: expected any, cpu, native"),
    ],
)
def test_bad_options_are_usage_errors(tmp_path: Path, option: str, value: str, words: str) -> None:
    arguments = ("gan", "--ckpt", SHARED_GAN, "--repository", tmp_path / "models", option, value)

    assert_fails(invoke(app, *arguments), 2, words)
    assert list(tmp_path.iterdir()) == []


def test_a_command_has_the_options_of_its_own_network_only() -> None:
    assert "No such option: --steps" in invoke(app, "gan", "--ckpt", "x.pt", "--steps", "3").stderr
    assert "No such option: --timesteps" in invoke(app, "gan", "--ckpt", "x.pt", "--timesteps", "3,1").stderr


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--steps", "20", "steps 20: sampler ddpm takes 50"),
        ("--timesteps", "49,3", "timesteps: sampler ddpm takes none"),
    ],
)
def test_a_chain_that_makes_no_sense_is_a_usage_error(tmp_path: Path, option: str, value: str, words: str) -> None:
    arguments = ("diffusion", "--ckpt", GOLDEN / "diffusion_small.pt", "--repository", tmp_path / "m")

    result = invoke(app, *arguments, option, value)

    assert result.returncode == 2
    assert words in result.stderr


def test_a_target_is_another_graph(repository_for_cpus: Path) -> None:
    checkpoint = repository_for_cpus.parent / "wide.pt"
    arguments = ["gan", "--ckpt", checkpoint, "--repository", repository_for_cpus, "--target", "cpu"]

    assert_fails(invoke(app, *arguments, "--precision", "fp16"), 2, "--target cpu", "fp16")
    model = onnx.load(repository_for_cpus / "gomin_gan/1/model.onnx")
    assert any("convs1.0/analysis/Conv" in node.name for node in model.graph.node)
    again = invoke(app, *arguments)
    assert "same recipe" in again.stderr
    assert "\nthe recorded results of its export:\n" in again.stderr
    assert again.stderr.endswith("\nversion 1 was already there: nothing was written\n")
    other = invoke(app, *arguments[:-2], "--dry-run")
    assert "gomin_gan/2" in other.stdout, other.stderr


@pytest.mark.parametrize(("chosen", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_do_not_spin_unless_the_user_says_so(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: str
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", chosen or "")
    if chosen is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")

    invoke(app, "gan", "--ckpt", "nowhere.pt")

    assert os.environ["OMP_WAIT_POLICY"] == expected


def test_without_torch_the_way_out_is_named(tmp_path: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; import gomin_export.cli as cli; cli.main()"

    result = run("python", "-c", program, "gan", "--ckpt", SHARED_GAN, cwd=tmp_path)

    assert_fails(result, 2, "this needs the package torch: pip install 'gomin-triton[export]'")
