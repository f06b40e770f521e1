"""Tensors of the models that ONNX Runtime runs."""

from dataclasses import replace

from gomin_client.contract.model import ModelContract
from gomin_client.mel.features import MelConfig
from gomin_export.onnx import tensors

GAN = ModelContract("gan", MelConfig(), halo_frames=8)
DENOISER = replace(GAN, kind="denoiser", num_diffusion_steps=50)


def test_a_request_has_hop_length_samples_for_each_frame() -> None:
    assert tensors.inputs(GAN, 3) == {"mel": [128, 3]}
    assert tensors.inputs(DENOISER, 3) == {"mel": [128, 3], "signal": [1, 768], "timestep": [1]}


def test_axes_that_depend_on_the_length_are_dynamic() -> None:
    assert tensors.of(GAN) == {"mel": [128, None], "audio": [1, None]}
    assert tensors.of(DENOISER) == {"mel": [128, None], "signal": [1, None], "timestep": [1], "noise": [1, None]}
