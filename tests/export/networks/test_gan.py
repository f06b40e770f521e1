import copy
import json
import math

import numpy as np
import pytest
import torch

from gomin_export.networks import GANConfig, GomiGAN
from gomin_export.networks.gan import Snake
from tests.support import GOLDEN, golden


@pytest.mark.parametrize("name", ["gan_small", "gan_v3"])
@pytest.mark.parametrize("suffix", ["", "_short"])
def test_equals_the_original_network(name: str, suffix: str) -> None:
    network = GomiGAN.from_pretrained(GOLDEN / f"{name}.pt")
    vectors = golden(f"{name}_io.npz")

    audio = network(torch.from_numpy(vectors[f"mel{suffix}"]))

    np.testing.assert_allclose(audio.numpy(), vectors[f"audio{suffix}"], rtol=0, atol=1e-5)


def test_released_config_has_the_released_checkpoints_tensors() -> None:
    with torch.device("meta"):
        network = GomiGAN(**GANConfig().__dict__)

    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == json.loads((GOLDEN / "gan_state_dict_shapes.json").read_text())
    assert sum(parameter.numel() for parameter in network.parameters()) == 125_271_145


@pytest.mark.parametrize("name", ["gan_small", "gan_v3"])
def test_config_is_read_from_the_tensors(name: str) -> None:
    network = GomiGAN.from_pretrained(GOLDEN / f"{name}.pt")

    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    assert json.loads(json.dumps(network.config.__dict__)) == expected


def test_call_as_gomin_users_write_it() -> None:
    config = GANConfig(
        upsample_in_channels=32,
        upsample_strides=[8, 8, 4],
        resblock_kernel_sizes=[3, 7],
        resblock_dilations=[[1, 3], [1, 3]],
    )
    model = GomiGAN.from_pretrained(pretrained_model_path=str(GOLDEN / "gan_v3.pt"), **config.__dict__)
    waveform = torch.rand(2, 3000) - 0.5

    mel = model.prepare_melspectrogram(waveform)
    audio = model(mel)

    assert mel.shape == (2, 128, 12)
    assert audio.shape == (2, 1, 12 * 256)
    assert not model.training


def test_a_batch_item_does_not_depend_on_the_others(tiny_gan: GomiGAN) -> None:
    mel = torch.rand(3, 128, 9)

    together = tiny_gan(mel)
    alone = torch.cat([tiny_gan(item[None]) for item in mel])

    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 13])
def test_output_has_hop_length_samples_per_frame(tiny_gan: GomiGAN, frames: int) -> None:
    assert tiny_gan(torch.rand(1, 128, frames)).shape == (1, 1, 256 * frames)


def test_low_pass_filters_are_those_of_the_checkpoints() -> None:
    network = GomiGAN.from_pretrained(GOLDEN / "gan_small.pt")
    fresh = GomiGAN(**network.config.__dict__)

    for name, stored in network.named_buffers():
        np.testing.assert_allclose(fresh.get_buffer(name), stored, rtol=0, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("alpha", [-3.0, -1e-4, 0.0, 1e-39, 1e-4, 0.5, 10.0])
def test_snake(alpha: float) -> None:
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)[None, None]
    snake = Snake(1).double()
    snake.alpha.fill_(alpha)

    expected = x if alpha == 0 else x + torch.sin(alpha * x) ** 2 / alpha
    torch.testing.assert_close(snake(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(snake.float()(x.float()), expected.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "strides", "kernels", "dilations"),
    [
        (16, (8, 8, 4), (3,), ((1,),)),
        (16, (4, 4, 4, 4), (3, 7), ((1, 3, 5), (1, 3))),
        (64, (4, 4, 2, 2, 2, 2), (3, 7, 11), ((1, 3, 5), (1, 3, 5), (1, 3, 5))),
    ],
)
def test_halo_is_the_receptive_field_to_the_frame(
    channels: int, strides: tuple[int, ...], kernels: tuple[int, ...], dilations: tuple[tuple[int, ...], ...]
) -> None:
    config = GANConfig(128, channels, strides, kernels, dilations)
    torch.manual_seed(0)
    network = GomiGAN(**config.__dict__).double()
    halo = network.halo_frames
    mel = torch.rand(1, 128, 2 * halo + 3, dtype=torch.float64, requires_grad=True)
    middle = halo + 1

    with torch.enable_grad():
        # a gradient is exactly zero where nothing is connected, and however small elsewhere
        (gradient,) = torch.autograd.grad(network(mel)[..., 256 * middle : 256 * (middle + 1)].sum(), mel)

    seen = torch.nonzero(gradient.abs().amax(dim=(0, 1))).ravel() - middle
    assert seen.abs().max() == halo


def test_float64_shows_how_exact_float32_is(tiny_gan: GomiGAN) -> None:
    mel = torch.from_numpy(golden("gan_v3_io.npz")["mel"])
    exact = copy.deepcopy(tiny_gan).double()(mel.double())

    assert (tiny_gan(mel) - exact).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hop_length": 300}, "hop_length is 300"),
        ({"upsample_strides": (16, 16, 1)}, "must be even"),
        ({"resblock_kernel_sizes": (3, 7, 4)}, "must be odd"),
        ({"resblock_dilations": ((1,), (1,))}, "one list of dilations for each kernel size"),
        ({"upsample_in_channels": 100}, "cannot be halved 6 times"),
    ],
)
def test_impossible_configs_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GANConfig(**change)  # type: ignore[arg-type]


def test_config_strides_make_the_hop() -> None:
    assert math.prod(GANConfig().upsample_strides) == GANConfig().hop_length
