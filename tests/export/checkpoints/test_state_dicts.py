"""The state dict of a network in the containers and under the names that people's tools leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gomin_export.checkpoints import detect_kind, load_network
from gomin_export.cli import app
from gomin_export.errors import CheckpointError
from gomin_export.networks import DiffusionWrapper, GomiGAN
from tests.support import GOLDEN, golden, invoke

State = dict[str, Tensor]

OTHER = {"convs.0.weight": torch.zeros(2)}  # a state dict of no network of ours


@pytest.fixture
def state() -> State:
    return dict(torch.load(GOLDEN / "gan_v3.pt", weights_only=True))


@pytest.fixture
def diffusion_state() -> State:
    return dict(torch.load(GOLDEN / "diffusion_small.pt", weights_only=True))


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def load(tmp_path: Path, content: Any, key: str | None = None) -> list[str]:
    """Loads the golden GAN from a file with this content; returns the notes."""
    torch.save(content, tmp_path / "gan.pt")
    notes: list[str] = []
    network = load_network(GomiGAN, tmp_path / "gan.pt", key=key, say=notes.append)
    vectors = golden("gan_v3_io.npz")
    audio = network(torch.from_numpy(vectors["mel_short"]))
    np.testing.assert_allclose(audio.numpy(), vectors["audio_short"], rtol=0, atol=1e-5)
    return [note.removeprefix(f"{tmp_path}/gan.pt: ") for note in notes]


@pytest.mark.parametrize(
    ("prefix", "removed"),
    [
        ("_orig_mod.", "'_orig_mod.'"),
        ("module._orig_mod.", "'module.' and '_orig_mod.'"),
        ("_orig_mod.module.", "'_orig_mod.' and 'module.'"),
        ("_forward_module.", "'_forward_module.'"),
        ("_fsdp_wrapped_module.", "'_fsdp_wrapped_module.'"),
        ("generator.", "'generator.'"),
        ("model.", "'model.'"),
        ("net.gen.vocoder.", "'net.gen.vocoder.'"),
        ("model._orig_mod.generator.module.", "'_orig_mod.' and 'module.' and 'model.generator.'"),
    ],
)
def test_a_common_prefix_is_removed_and_reported(tmp_path: Path, state: State, prefix: str, removed: str) -> None:
    assert load(tmp_path, prefixed(prefix, state)) == [f"removed {removed} from the names of its tensors"]


def test_nothing_is_reported_of_a_plain_state_dict(tmp_path: Path, state: State) -> None:
    assert load(tmp_path, state) == []


def test_compiled_submodules(tmp_path: Path, state: State) -> None:
    names = {name: name.replace("ups.", "ups._orig_mod.").replace("conv_pre.", "conv_pre._orig_mod.") for name in state}

    assert load(tmp_path, {names[name]: tensor for name, tensor in state.items()}) == [
        "removed '_orig_mod.' from the names of its tensors"
    ]


def test_lightning_with_a_discriminator_and_optimizers(tmp_path: Path, state: State) -> None:
    discriminator = {f"discriminator.convs.{i}.weight": torch.zeros(2) for i in range(5)}
    content = {
        "state_dict": prefixed("generator.", state) | discriminator,
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0), "exp_avg": state["conv_pre.weight"]}}}],
        "epoch": 7,
        "pytorch-lightning_version": "2.4.0",
    }

    assert load(tmp_path, content) == [
        "took the state dict state_dict",
        "removed 'generator.' from the names of its tensors",
        "left out discriminator.convs.0.weight, discriminator.convs.1.weight, discriminator.convs.2.weight and 2 more",
    ]


@pytest.mark.parametrize(
    ("wrap", "label"),
    [
        (lambda state: {"model": {"generator": state, "discriminator": OTHER}}, "model.generator"),
        (lambda state: {"net_g": state, "net_d": OTHER}, "net_g"),
        (lambda state: {"a": {"b": {"c": {"d": state}}}}, "a.b.c.d"),
        (lambda state: {"models": [OTHER, state]}, "models.1"),
        (lambda state: [OTHER, state], "1"),
    ],
    ids=["model.generator", "net_g", "deep", "list", "top list"],
)  # fmt: skip
def test_nested_containers(tmp_path: Path, state: State, wrap: Callable[[State], Any], label: str) -> None:
    assert load(tmp_path, wrap(state)) == [f"took the state dict {label}"]


def test_counters_and_settings_beside_the_tensors_are_left_out(tmp_path: Path, state: State) -> None:
    averaged = {"n_averaged": torch.tensor(3), **prefixed("module.", state)}  # torch.optim.swa_utils.AveragedModel
    assert load(tmp_path, averaged) == ["removed 'module.' from the names of its tensors", "left out n_averaged"]

    assert load(tmp_path, {**state, "epoch": 3, "name": "gan", "lr": None}) == ["left out epoch, name, lr"]


def test_averaged_weights_beside_the_trained_ones_need_a_choice(tmp_path: Path, state: State) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    content = {"initted": torch.tensor(True), **prefixed("online_model.", zeros), **prefixed("ema_model.", state)}

    with pytest.raises(
        CheckpointError, match=r"several state dicts \(ema_model, online_model\): choose one with --key"
    ):
        load(tmp_path, content)
    for key in ("ema_model", "ema_model."):
        assert load(tmp_path, content, key)[0] == "removed 'ema_model.' from the names of its tensors"
    with pytest.raises(CheckpointError, match=r"no state dict under 'best'; it has ema_model, online_model"):
        load(tmp_path, content, "best")


def test_one_with_a_prefix_beside_one_without(tmp_path: Path, state: State) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    content = zeros | prefixed("ema.", state)

    with pytest.raises(CheckpointError, match=r'several state dicts \("", ema\)'):
        load(tmp_path, content)
    load(tmp_path, content, "ema")
    load(tmp_path, state | prefixed("ema.", zeros), "")


@pytest.mark.parametrize("key", ["trainer.ema", "trainer.ema.generator", "generator"])
def test_a_key_is_a_path_or_a_prefix(tmp_path: Path, state: State, key: str) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}

    load(tmp_path, {"trainer": {"ema": prefixed("generator.", state), "raw": prefixed("g.", zeros)}}, key)


def test_one_tensor_under_two_names(tmp_path: Path, state: State) -> None:
    with pytest.raises(CheckpointError, match=r'has tensor \S+ both with and without the prefix "module\."'):
        load(tmp_path, state | prefixed("module.", state))


def test_a_container_that_contains_itself(tmp_path: Path, state: State) -> None:
    knot: dict[Any, Any] = {"weights": state}
    knot.update(dict.fromkeys(range(3000), knot))

    assert load(tmp_path, knot) == ["took the state dict weights"]


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "_orig_mod.", "vocoder.", "vocoder.model.", "ema_model.module.", "module._orig_mod."],
)
def test_prefixes_of_the_denoiser_and_of_its_wrapper(tmp_path: Path, diffusion_state: State, prefix: str) -> None:
    """A wrapper's state dict has "model." in front of the denoiser's names, and that is also a common prefix."""
    torch.save(prefixed(prefix, diffusion_state), tmp_path / "a.pt")

    network = DiffusionWrapper.from_pretrained(tmp_path / "a.pt")

    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, diffusion_state[name], rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["", "generator.", "_orig_mod."])
def test_the_bare_denoiser_loads(tmp_path: Path, diffusion_state: State, prefix: str) -> None:
    bare = {prefix + name.removeprefix("model."): tensor for name, tensor in diffusion_state.items()}
    torch.save({"denoiser": bare}, tmp_path / "a.pt")
    notes: list[str] = []

    network = load_network(DiffusionWrapper, tmp_path / "a.pt", say=notes.append)

    assert network.config.residual_layers == 8
    assert notes[-1].endswith("added 'model.' to the names of its tensors")


def test_a_file_with_both_networks(tmp_path: Path, state: State, diffusion_state: State) -> None:
    torch.save({"gan": state, "diffusion": diffusion_state}, tmp_path / "both.pt")

    assert isinstance(load_network(GomiGAN, tmp_path / "both.pt"), GomiGAN)
    assert isinstance(load_network(DiffusionWrapper, tmp_path / "both.pt"), DiffusionWrapper)
    with pytest.raises(CheckpointError, match=r"several state dicts \(gan, diffusion\)"):
        detect_kind(tmp_path / "both.pt")
    assert detect_kind(tmp_path / "both.pt", "diffusion") == "diffusion"


def test_safetensors_with_a_prefix_and_metadata(tmp_path: Path, state: State) -> None:
    save_file(prefixed("generator.", state), tmp_path / "model.safetensors", metadata={"format": "pt"})

    assert GomiGAN.from_pretrained(tmp_path / "model.safetensors").mel_config.n_mels == 128


def test_the_command_line_reports_what_it_did(tmp_path: Path, state: State) -> None:
    torch.save({"step": 5, "model": prefixed("_orig_mod.", state)}, tmp_path / "gan.pt")

    result = invoke(app, "gan", "--ckpt", tmp_path / "gan.pt", "--repository", tmp_path / "m", "--dry-run")

    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines() == [
        f"loading {tmp_path}/gan.pt",
        f"{tmp_path}/gan.pt: took the state dict model",
        f"{tmp_path}/gan.pt: removed '_orig_mod.' from the names of its tensors",
    ]
