import json

import numpy as np
import pytest
import torch

from gomin_client.sampling.noise import NoiseField
from gomin_export.networks import DiffusionConfig, DiffusionWrapper
from tests.support import GOLDEN, golden

IO = golden("diffusion_small_io.npz")


@pytest.mark.parametrize("timestep", [0, 7, 49, 0.0, 3.25, 48.5])
def test_equals_the_original_denoiser(small_diffusion: DiffusionWrapper, timestep: float) -> None:
    noise = small_diffusion.model(torch.from_numpy(IO["signal"]), torch.tensor([timestep]), torch.from_numpy(IO["mel"]))

    np.testing.assert_allclose(noise.numpy(), IO[f"noise_t{timestep}"], rtol=0, atol=1e-5)


def test_equals_the_original_with_a_timestep_for_each_item(small_diffusion: DiffusionWrapper) -> None:
    noise = small_diffusion.model(torch.from_numpy(IO["signal"]), torch.tensor([3, 41]), torch.from_numpy(IO["mel"]))

    np.testing.assert_allclose(noise.numpy(), IO["noise_t_per_item"], rtol=0, atol=1e-5)


def test_equals_the_original_chain(small_diffusion: DiffusionWrapper) -> None:
    draws = IO["chain_draws"]

    sequence = small_diffusion(
        torch.from_numpy(IO["chain_mel"]), return_whole_sequence=True, noise=lambda draw: draws[draw][np.newaxis]
    )

    assert len(sequence) == 51
    np.testing.assert_array_equal(sequence[-1].numpy(), draws[:1])  # newest first: the start comes last
    np.testing.assert_allclose(sequence[0].numpy(), IO["chain_audio"], rtol=0, atol=1e-5)


def test_released_config_has_the_released_checkpoints_tensors() -> None:
    with torch.device("meta"):
        network = DiffusionWrapper(**DiffusionConfig().__dict__)

    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == json.loads((GOLDEN / "diffusion_state_dict_shapes.json").read_text())
    assert sum(parameter.numel() for parameter in network.parameters()) == 7_353_027


def test_config_is_read_from_the_tensors(small_diffusion: DiffusionWrapper) -> None:
    assert small_diffusion.config.__dict__ == json.loads((GOLDEN / "diffusion_small.json").read_text())


def test_call_as_gomin_users_write_it() -> None:
    config = DiffusionConfig(in_channels=32, residual_layers=8, residual_channels=32, dilation_cycle_length=4)
    model = DiffusionWrapper.from_pretrained(
        pretrained_model_path=str(GOLDEN / "diffusion_small.pt"), **config.__dict__
    )
    waveform = torch.rand(1, 300) - 0.5

    mel = model.prepare_melspectrogram(waveform)
    audio = model(mel)

    assert mel.shape == (1, 32, 2)
    assert audio.shape == (1, 1, 512)
    assert audio.abs().max() <= 1


def test_seeds_decide_the_noise(small_diffusion: DiffusionWrapper) -> None:
    mel = torch.from_numpy(IO["mel"])[:, :, :2]

    same = small_diffusion(mel, seed=[3, 4])
    again = small_diffusion(mel[1:], seed=4)
    fresh = small_diffusion(mel[1:])

    torch.testing.assert_close(same[1:], again, rtol=0, atol=1e-5)
    assert (fresh - again).abs().max() > 0.01


@pytest.mark.parametrize("timestep", [-1, 50, 49.5])
def test_a_timestep_out_of_range_is_an_error(small_diffusion: DiffusionWrapper, timestep: float) -> None:
    with pytest.raises(ValueError, match=r"out of range; expected 0 … 49"):
        small_diffusion.model(torch.zeros(1, 1, 256), torch.tensor([timestep]), torch.zeros(1, 32, 1))


def test_the_networks_may_be_wider_or_narrower_than_the_mel() -> None:
    network = DiffusionWrapper(in_channels=20, residual_layers=4, residual_channels=6, dilation_cycle_length=2)

    assert network(torch.rand(2, 20, 3), seed=0).shape == (2, 1, 768)


@pytest.mark.parametrize(("layers", "cycle"), [(4, 4), (12, 6), (20, 10), (30, 10)])
def test_halo_is_the_receptive_field_to_the_frame(layers: int, cycle: int) -> None:
    torch.manual_seed(0)
    network = DiffusionWrapper(4, layers, 8, cycle).eval().double()
    halo = network.halo_frames
    frames = 2 * halo + 5
    middle = halo + 2
    mel = torch.rand(1, 4, frames, dtype=torch.float64, requires_grad=True)
    signal = torch.randn(1, 1, 256 * frames, dtype=torch.float64, requires_grad=True)

    with torch.enable_grad():
        # a gradient is exactly zero where nothing is connected, and however small elsewhere
        noise = network.model(signal, torch.tensor([10]), mel)[..., 256 * middle : 256 * (middle + 1)].sum()
        by_mel, by_signal = torch.autograd.grad(noise, (mel, signal))

    seen_mel = by_mel.abs().amax(dim=(0, 1))
    seen_signal = by_signal.abs().reshape(frames, 256).amax(dim=1)
    assert (torch.nonzero(seen_mel + seen_signal).ravel() - middle).abs().max() == halo


def test_noise_field_of_the_wrapper_is_the_clients() -> None:
    network = DiffusionWrapper(4, 2, 4, 2)
    mel = torch.rand(1, 4, 3)

    by_seed = network(mel, seed=11)
    by_field = network(mel, noise=NoiseField([11], 768))

    torch.testing.assert_close(by_seed, by_field, rtol=0, atol=0)
