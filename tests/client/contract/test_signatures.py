"""The tensors of each kind of model."""

from dataclasses import replace

import pytest

from gomin_client.contract.model import KINDS, OUTPUTS, ModelContract
from gomin_client.contract.signatures import BATCH, SIGNATURES
from gomin_client.mel.features import MelConfig
from gomin_client.transports.triton import DTYPES

GAN = ModelContract("gan", MelConfig(sample_rate=22050, win_length=800, hop_length=200, n_mels=80), halo_frames=8)
DENOISER = replace(GAN, kind="denoiser", num_diffusion_steps=50)
CONTRACTS = {kind: replace(DENOISER, kind=kind) for kind in KINDS}


def test_every_kind_has_a_signature() -> None:
    assert set(SIGNATURES) == set(KINDS)
    assert {kind: signature.outputs[0].name for kind, signature in SIGNATURES.items()} == OUTPUTS


def test_a_request_has_hop_length_samples_for_each_frame() -> None:
    sizes = {tensor.name: tensor.sizes(DENOISER, 3) for tensor in SIGNATURES["denoiser"].inputs}

    assert sizes == {"signal": [1, 600], "timestep": [1], "mel": [80, 3]}


def test_axes_that_depend_on_the_length_are_dynamic() -> None:
    shapes = {tensor.name: tensor.shape(DENOISER) for tensor in SIGNATURES["denoiser"].tensors}
    layouts = {tensor.name: tensor.layout(DENOISER) for tensor in SIGNATURES["denoiser"].tensors}

    assert shapes == {"signal": [-1, 1, -1], "timestep": [-1, 1], "mel": [-1, 80, -1], "noise": [-1, 1, -1]}
    assert layouts["mel"] == f"({BATCH}, 80, frames)"
    assert layouts["noise"] == f"({BATCH}, 1, samples)"


def test_only_the_first_sample_is_optional() -> None:
    optional = {tensor.name for signature in SIGNATURES.values() for tensor in signature.tensors if tensor.is_optional}

    assert optional == {"first_sample"}


@pytest.mark.parametrize("kind", KINDS)
def test_units_and_meanings_have_the_settings_of_the_model(kind: str) -> None:
    words = {tensor.name: tensor.words(CONTRACTS[kind]) for tensor in SIGNATURES[kind].tensors}

    assert all(tensor.datatype in DTYPES for tensor in SIGNATURES[kind].tensors)
    assert all(unit and meaning and "{" not in unit + meaning for unit, meaning in words.values())
    if "mel" in words:
        assert "80 bands from 0 to 11025 Hz, a frame every 200 samples at 22050 Hz" in words["mel"][1]
        assert "0 is -100 dB" in words["mel"][0]
    if "audio" in words:
        assert "22050 Hz" in words["audio"][1]
        assert words["audio"][0] == "1 is full scale"
    if "timestep" in words:
        assert "to 49 (most noise)" in words["timestep"][0]
