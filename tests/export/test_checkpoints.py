import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gomin_client.errors import UsageError
from gomin_export.checkpoints import load_network, read_config_file
from gomin_export.errors import CheckpointError
from gomin_export.networks import DiffusionWrapper, GANConfig, GomiGAN
from tests.support import GOLDEN, assert_fails, golden, run

State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    return dict(torch.load(GOLDEN / "gan_v3.pt", weights_only=True))


@pytest.fixture
def diffusion_state() -> State:
    return dict(torch.load(GOLDEN / "diffusion_small.pt", weights_only=True))


def assert_is_the_golden_network(network: GomiGAN) -> None:
    vectors = golden("gan_v3_io.npz")
    audio = network(torch.from_numpy(vectors["mel_short"]))
    np.testing.assert_allclose(audio.numpy(), vectors["audio_short"], rtol=0, atol=1e-5)


def with_melspec(state: State) -> State:
    """As a checkpoint is that was saved after the original program had computed a mel."""
    return state | {
        "melspec_layer.spectrogram.window": torch.hann_window(1024),
        "melspec_layer.mel_scale.fb": torch.zeros(513, 128),
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 1.0}},
        lambda state: {"generator": state},
        lambda state: {"model": state},
        lambda state: {"ema": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        with_melspec,
        lambda state: {f"module.{name}": tensor for name, tensor in with_melspec(state).items()},
    ],
    ids=["plain", "state_dict", "generator", "model", "ema", "module", "model+module", "melspec", "module+melspec"],
)
def test_every_form_of_checkpoint_loads(tmp_path: Path, state: State, wrap: Callable[[State], Any]) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(wrap(state), path)

    assert_is_the_golden_network(GomiGAN.from_pretrained(path))


@pytest.mark.parametrize("name", ["gan.safetensors", "gan.pt"])
def test_safetensors_load_whatever_their_name(tmp_path: Path, state: State, name: str) -> None:
    save_file(state, tmp_path / name)

    assert_is_the_golden_network(GomiGAN.from_pretrained(tmp_path / name))


def test_legacy_torch_files_load(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)

    assert_is_the_golden_network(GomiGAN.from_pretrained(tmp_path / "old.pt"))


def test_half_precision_checkpoints_load_as_float32(tmp_path: Path, state: State) -> None:
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.pt")

    network = GomiGAN.from_pretrained(tmp_path / "half.pt")

    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    torch.testing.assert_close(network.conv_pre.weight, state["conv_pre.weight"].half().float(), rtol=0, atol=0)


def test_diffusion_with_dataparallel_inside_the_wrapper(tmp_path: Path, diffusion_state: State) -> None:
    renamed = {name.replace("model.", "model.module.", 1): tensor for name, tensor in diffusion_state.items()}
    torch.save(renamed, tmp_path / "diffusion.pt")

    assert DiffusionWrapper.from_pretrained(tmp_path / "diffusion.pt").config.residual_layers == 8


def test_window_left_behind_shows_the_window_length(tmp_path: Path, state: State) -> None:
    torch.save(state | {"melspec_layer.spectrogram.window": torch.hann_window(800)}, tmp_path / "a.pt")

    assert GomiGAN.from_pretrained(tmp_path / "a.pt").mel_config.win_length == 800


def test_several_state_dicts_need_a_choice(tmp_path: Path, state: State) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"model": zeros, "ema": state}, tmp_path / "both.pt")

    with pytest.raises(CheckpointError, match=r"several state dicts \(model, ema\): choose one with --key"):
        load_network(GomiGAN, tmp_path / "both.pt")
    assert_is_the_golden_network(load_network(GomiGAN, tmp_path / "both.pt", key="ema"))
    with pytest.raises(CheckpointError, match="no state dict under 'best'"):
        load_network(GomiGAN, tmp_path / "both.pt", key="best")


def test_an_unknown_wrapper_is_taken_if_there_is_no_other(tmp_path: Path, state: State) -> None:
    torch.save({"gen": state, "discriminator": {"convs.0.weight": torch.zeros(2)}, "steps": 9}, tmp_path / "a.pt")
    assert_is_the_golden_network(GomiGAN.from_pretrained(tmp_path / "a.pt"))

    torch.save({"gen": state, "ema": state}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"several state dicts \(gen, ema\)"):
        GomiGAN.from_pretrained(tmp_path / "b.pt")


@pytest.mark.parametrize(
    "override", [{"sample_rate": -1}, {"win_length": 0}, {"sample_rate": "fast"}, {"hop_length": 2.5}]
)
def test_impossible_mel_settings_are_refused(tmp_path: Path, state: State, override: dict[str, Any]) -> None:
    torch.save(state, tmp_path / "gan.pt")

    with pytest.raises(CheckpointError, match=rf"gan\.pt: its config is not usable: .*{next(iter(override))}"):
        load_network(GomiGAN, tmp_path / "gan.pt", override)


def test_config_overrides_win(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "gan.pt")

    network = load_network(GomiGAN, tmp_path / "gan.pt", {"resblock_dilations": [[1, 2], [1, 2]]})

    assert network.resblocks[0].convs1[1].dilation == (2,)
    with pytest.raises(CheckpointError, match=r"gan\.pt: .*hop_length is 300"):
        load_network(GomiGAN, tmp_path / "gan.pt", {"hop_length": 300})
    with pytest.raises(CheckpointError, match=r"gan\.pt: tensor .* has shape .* expected \(128, 64, 16\)"):
        load_network(GomiGAN, tmp_path / "gan.pt", {"upsample_in_channels": 64})


def test_config_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"upsample_stride": [4]}')
    with pytest.raises(UsageError, match=r"config\.json: unknown config value 'upsample_stride'"):
        read_config_file(path, GANConfig)
    path.write_text("{")
    with pytest.raises(UsageError, match=r"config\.json: cannot be read as a JSON config"):
        read_config_file(path, GANConfig)
    path.write_text("[1]")
    with pytest.raises(UsageError, match=r"config\.json: expected a JSON object"):
        read_config_file(path, GANConfig)


GAN_TENSORS = [
    "conv_pre.weight", "conv_pre.bias", "conv_post.weight", "ups.0.weight", "ups.1.weight", "ups.2.bias",
    "snake_ups.0.alpha", "snake_post.alpha", "film_generator.convs.0.weight", "film_generator.convs.2.weight",
    "resblocks.0.convs1.0.weight", "resblocks.3.convs2.1.bias", "resblocks.5.snakes1.1.alpha", "resblocks.4.lpf",
]  # fmt: skip
DIFFUSION_TENSORS = [
    "model.input_projection.weight", "model.film_layers.0.weight", "model.film_layers.1.bias",
    "model.residual_layers.3.dilated_conv.weight", "model.residual_layers.7.diffusion_projection.bias",
    "model.spectrogram_upsampler.conv1.weight", "model.skip_projection.bias",
    "model.diffusion_embedding.projection2.weight",
]  # fmt: skip


@pytest.mark.parametrize(
    ("network", "file"), [(GomiGAN, "gan_v3.pt"), (DiffusionWrapper, "diffusion_small.pt")], ids=["gan", "diffusion"]
)
def test_any_missing_tensor_is_named(tmp_path: Path, network: type[GomiGAN | DiffusionWrapper], file: str) -> None:
    complete = dict(torch.load(GOLDEN / file, weights_only=True))
    path = tmp_path / "checkpoint.pt"

    for name in complete:
        torch.save({other: tensor for other, tensor in complete.items() if other != name}, path)
        with pytest.raises(CheckpointError) as caught:
            network.from_pretrained(path)
        assert str(caught.value).startswith(f"{path}: tensor {name} is missing"), name


@pytest.mark.parametrize("name", GAN_TENSORS)
def test_a_misshapen_tensor_is_named(tmp_path: Path, state: State, name: str) -> None:
    state[name] = torch.cat([state[name], state[name]])
    torch.save(state, tmp_path / "gan.pt")

    with pytest.raises(CheckpointError, match=rf"gan\.pt: tensor {re.escape(name)} has shape"):
        GomiGAN.from_pretrained(tmp_path / "gan.pt")


@pytest.mark.parametrize("name", [name for name in GAN_TENSORS if "weight" in name])
def test_a_misshapen_kernel_is_named(tmp_path: Path, state: State, name: str) -> None:
    state[name] = torch.cat([state[name], state[name]], dim=2)
    torch.save(state, tmp_path / "gan.pt")

    with pytest.raises(CheckpointError, match=rf"gan\.pt: tensors? .*{re.escape(name)} ") as caught:
        GomiGAN.from_pretrained(tmp_path / "gan.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", DIFFUSION_TENSORS)
def test_a_misshapen_diffusion_tensor_is_named(tmp_path: Path, diffusion_state: State, name: str) -> None:
    diffusion_state[name] = torch.cat([diffusion_state[name], diffusion_state[name]])
    torch.save(diffusion_state, tmp_path / "diffusion.pt")

    with pytest.raises(CheckpointError, match=rf"diffusion\.pt: tensor {re.escape(name)} has shape"):
        DiffusionWrapper.from_pretrained(tmp_path / "diffusion.pt")


def test_unexpected_and_unusable_tensors_are_named(tmp_path: Path, state: State) -> None:
    torch.save(state | {"extra.weight": torch.zeros(2)}, tmp_path / "gan.pt")
    with pytest.raises(CheckpointError, match=r"gan\.pt: unexpected tensor extra\.weight"):
        GomiGAN.from_pretrained(tmp_path / "gan.pt")

    torch.save(state | {"conv_post.bias": torch.full((1,), torch.nan)}, tmp_path / "gan.pt")
    with pytest.raises(CheckpointError, match=r"gan\.pt: tensor conv_post\.bias contains NaN"):
        GomiGAN.from_pretrained(tmp_path / "gan.pt")

    torch.save(state | {"conv_post.bias": torch.zeros(1, dtype=torch.int64)}, tmp_path / "gan.pt")
    with pytest.raises(CheckpointError, match=r"gan\.pt: tensor conv_post\.bias has type torch\.int64"):
        GomiGAN.from_pretrained(tmp_path / "gan.pt")


def test_config_values_that_are_no_counts_are_refused(tmp_path: Path, diffusion_state: State) -> None:
    torch.save(diffusion_state, tmp_path / "diffusion.pt")

    for override in ({"num_diffusion_steps": 50.0}, {"residual_channels": 0}, {"dilation_cycle_length": True}):
        with pytest.raises(CheckpointError, match=rf"{next(iter(override))} contains .*; expected whole numbers"):
            load_network(DiffusionWrapper, tmp_path / "diffusion.pt", override)


def test_deeper_resblocks_need_their_dilations(tmp_path: Path) -> None:
    config = GANConfig(128, 8, (16, 16), (3,), ((1, 2, 4, 8),))
    torch.save(GomiGAN(**config.__dict__).state_dict(), tmp_path / "deep.pt")

    with pytest.raises(CheckpointError, match="give resblock_dilations in a config file"):
        GomiGAN.from_pretrained(tmp_path / "deep.pt")
    assert GomiGAN.from_pretrained(tmp_path / "deep.pt", resblock_dilations=[[1, 2, 4, 8]]).config == config


class Marker:
    """Unpickling this makes a file: proof that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], Any], tuple[Path]]:
        return Path.touch, (self.path,)


def make_malicious_torch_file(path: Path, state: State) -> None:
    torch.save(state | {"evil": Marker(path.parent / "code-ran")}, path)


def make_malicious_pickle(path: Path, state: State) -> None:
    path.write_bytes(pickle.dumps(Marker(path.parent / "code-ran"), protocol=2))


def make_malicious_modern_pickle(path: Path, state: State) -> None:
    path.write_bytes(pickle.dumps(Marker(path.parent / "code-ran")))


def make_pickled_module(path: Path, state: State) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def make_truncated(path: Path, state: State) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-5000])


def make_truncated_safetensors(path: Path, state: State) -> None:
    save_file(state, path)
    path.write_bytes(path.read_bytes()[:-5000])


def make_text(path: Path, state: State) -> None:
    path.write_text("this is not a checkpoint\n")


def make_empty(path: Path, state: State) -> None:
    path.touch()


def make_tensor(path: Path, state: State) -> None:
    torch.save(torch.zeros(3), path)


def make_foreign_network(path: Path, state: State) -> None:
    torch.save({"encoder.weight": torch.zeros(3)}, path)


def make_other_network(path: Path, state: State) -> None:
    path.write_bytes((GOLDEN / "diffusion_small.pt").read_bytes())


def make_missing_tensor(path: Path, state: State) -> None:
    del state["ups.1.weight"]
    torch.save(state, path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_malicious_torch_file, ["refused", "the Python object getattr", "could run code"]),
        (make_malicious_pickle, ["refused", "could run code"]),
        (make_pickled_module, ["refused", "torch.nn.modules.linear.Linear", "model.state_dict()"]),
        (make_malicious_modern_pickle, ["is not a checkpoint"]),
        (make_truncated, ["truncated or damaged"]),
        (make_truncated_safetensors, ["truncated or damaged"]),
        (make_text, ["is not a checkpoint"]),
        (make_empty, ["is empty"]),
        (make_tensor, ["contains a Tensor", "state dict"]),
        (make_foreign_network, ["is not a GOMIN gan checkpoint", "encoder.weight"]),
        (make_other_network, ["is a diffusion checkpoint", "gomin-export diffusion"]),
        (make_missing_tensor, ["tensor ups.1.weight is missing"]),
    ],
)
def test_a_wrong_file_gets_one_sentence(
    tmp_path: Path, state: State, make: Callable[[Path, State], None], words: list[str]
) -> None:
    path = tmp_path / "wrong.pt"
    make(path, state)

    with pytest.raises(CheckpointError) as caught:
        GomiGAN.from_pretrained(path)

    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    for word in words:
        assert word in message, message
    assert not (tmp_path / "code-ran").exists()


def test_the_marker_would_show_that_code_ran(tmp_path: Path, state: State) -> None:
    make_malicious_pickle(tmp_path / "evil.pt", state)

    pickle.loads((tmp_path / "evil.pt").read_bytes())

    assert (tmp_path / "code-ran").exists()


def test_the_command_line_ends_with_status_6(tmp_path: Path, state: State) -> None:
    make_malicious_torch_file(tmp_path / "evil.pt", state)

    result = run("gomin-export", "gan", "--ckpt", tmp_path / "evil.pt", "--repository", tmp_path / "models")

    assert result.returncode == 6
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith(f"gomin-export: {tmp_path / 'evil.pt'}: refused")
    assert not (tmp_path / "code-ran").exists()
    assert not (tmp_path / "models").exists()


def test_a_missing_checkpoint_ends_with_status_6(tmp_path: Path) -> None:
    result = run("gomin-export", "diffusion", "--ckpt", "nowhere.pt", cwd=tmp_path)

    assert result.returncode == 6
    assert "gomin-export: nowhere.pt: no such file" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a directory"):
        GomiGAN.from_pretrained(tmp_path)
    assert_fails(run("gomin-export", "gan", "--ckpt", tmp_path, "--config", "nowhere.json"), 2, "nowhere.json")
