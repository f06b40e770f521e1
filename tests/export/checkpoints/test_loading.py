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
from gomin_export.checkpoints.files import load_file
from gomin_export.errors import CheckpointError
from gomin_export.networks import DiffusionWrapper, GANConfig, GomiGAN
from tests.support import GOLDEN, golden

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


class TestClaims:
    """Tensors whose values are not all in the file are refused before anything of their size is allocated."""

    def test_tensors_of_the_meta_device(self, tmp_path: Path, state: State) -> None:
        torch.save({name: tensor.to("meta") for name, tensor in state.items()}, tmp_path / "gan.pt")
        with pytest.raises(
            CheckpointError, match=r"gan\.pt: tensor \S+ has no values: it was saved on the meta device"
        ):
            GomiGAN.from_pretrained(tmp_path / "gan.pt")

        torch.save(state | {"conv_post.bias": state["conv_post.bias"].to("meta")}, tmp_path / "gan.pt")
        with pytest.raises(CheckpointError, match=r"gan\.pt: tensor conv_post\.bias has no values"):
            GomiGAN.from_pretrained(tmp_path / "gan.pt")

    @pytest.mark.parametrize("size", [2**20, 2**50])
    def test_strides_of_zero(self, tmp_path: Path, state: State, size: int) -> None:
        torch.save(state | {"conv_pre.weight": torch.zeros(1).expand(size, 128, 7)}, tmp_path / "gan.pt")

        with pytest.raises(
            CheckpointError, match=r"conv_pre\.weight has shape \(\d+, 128, 7\), .* holds 4 bytes of it"
        ):
            GomiGAN.from_pretrained(tmp_path / "gan.pt")

    def test_overlapping_strides(self, tmp_path: Path, state: State) -> None:
        overlapping = torch.zeros(2000).as_strided((64, 128, 7), (1, 1, 1))
        torch.save(state | {"conv_pre.weight": overlapping}, tmp_path / "gan.pt")

        with pytest.raises(CheckpointError, match=r"tensor conv_pre\.weight has shape .*strides are \(1, 1, 1\)"):
            GomiGAN.from_pretrained(tmp_path / "gan.pt")

    def test_many_tensors_of_the_same_values(self, tmp_path: Path, state: State) -> None:
        """A file of a few megabytes that would become a network of any size."""
        weight = torch.zeros(512, 512, 11)
        convolutions = {f"resblocks.0.convs1.{i}.weight": weight for i in range(50)}
        torch.save(state | convolutions, tmp_path / "gan.pt")

        with pytest.raises(CheckpointError, match=r"its tensors are views of the same values, \d+ bytes of \d+"):
            GomiGAN.from_pretrained(tmp_path / "gan.pt")

    def test_indices_beyond_all_tensors(self, tmp_path: Path, state: State) -> None:
        torch.save(state | {"ups.987654321.weight": torch.zeros(1)}, tmp_path / "gan.pt")

        with pytest.raises(CheckpointError, match=r"tensor ups\.987654321\.\* has a higher index than the file has"):
            GomiGAN.from_pretrained(tmp_path / "gan.pt")

    def test_sparse_tensors(self, tmp_path: Path, state: State) -> None:
        torch.save(state | {"conv_post.bias": state["conv_post.bias"].to_sparse()}, tmp_path / "gan.pt")

        with pytest.raises(CheckpointError, match=r"tensor conv_post\.bias is sparse"):
            GomiGAN.from_pretrained(tmp_path / "gan.pt")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e5m2])
def test_other_float_types_load_as_float32(tmp_path: Path, state: State, dtype: torch.dtype) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "gan.pt")

    network = GomiGAN.from_pretrained(tmp_path / "gan.pt")

    torch.testing.assert_close(network.conv_pre.weight, state["conv_pre.weight"].to(dtype).float(), rtol=0, atol=0)


def test_views_of_one_storage_load(tmp_path: Path, state: State) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in state.values()])
    parts = flat.split([tensor.numel() for tensor in state.values()])
    views = {name: part.view(tensor.shape) for (name, tensor), part in zip(state.items(), parts, strict=True)}
    torch.save(views, tmp_path / "views.pt")

    assert_is_the_golden_network(GomiGAN.from_pretrained(tmp_path / "views.pt"))


def test_parameters_and_strides_of_any_order_load(tmp_path: Path, state: State) -> None:
    turned = {name: tensor.transpose(0, -1).contiguous().transpose(0, -1) for name, tensor in state.items()}
    torch.save({name: torch.nn.Parameter(tensor) for name, tensor in turned.items()}, tmp_path / "a.pt")

    assert_is_the_golden_network(GomiGAN.from_pretrained(tmp_path / "a.pt"))


def test_checksums_that_were_left_out_are_not_missed(tmp_path: Path, state: State) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({**state, "epoch": torch.zeros(0)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)

    load_file(tmp_path / "a.pt")
