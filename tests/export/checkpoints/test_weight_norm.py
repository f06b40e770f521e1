from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gomin_export.checkpoints import load_network, weight_norm
from gomin_export.errors import CheckpointError
from gomin_export.networks import GomiGAN
from tests.support import GOLDEN

State = dict[str, Tensor]
PATH = Path("gan.pt")


@pytest.fixture
def network() -> GomiGAN:
    return GomiGAN.from_pretrained(GOLDEN / "gan_v3.pt")


@pytest.mark.parametrize("form", ["hook", "parametrization"])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_a_network_that_was_saved_with_weight_norm(tmp_path: Path, network: GomiGAN, form: str) -> None:
    plain = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    apply = torch.nn.utils.weight_norm if form == "hook" else parametrizations.weight_norm
    convolutions = [module for module in network.modules() if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d))]
    for module in convolutions:
        apply(module)
    assert set(network.state_dict()) != set(plain)
    torch.save({"generator": network.state_dict()}, tmp_path / "gan.pt")
    notes: list[str] = []

    loaded = load_network(GomiGAN, tmp_path / "gan.pt", say=notes.append)

    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-6, atol=1e-7)
    assert notes[-1].endswith(f"folded weight norm into {len(convolutions)} weights")


@pytest.mark.parametrize("dim", [0, 1, 2, None])
@pytest.mark.parametrize("module", [nn.Conv1d(3, 4, 5), nn.ConvTranspose1d(1, 4, 2), nn.Conv1d(6, 6, 1, groups=6)])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_any_dimension(module: nn.Module, dim: int | None) -> None:
    wrapped = torch.nn.utils.weight_norm(module, dim=dim)
    state = {name: tensor.detach() * 1.5 for name, tensor in wrapped.state_dict().items()}
    wrapped.load_state_dict(state)
    wrapped(torch.zeros(1, 6 if isinstance(module, nn.Conv1d) and module.groups == 6 else module.in_channels, 9))

    folded, count = weight_norm.fold(PATH, state)

    assert count == 1
    torch.testing.assert_close(folded["weight"], wrapped.weight.detach(), rtol=1e-6, atol=1e-7)
    torch.nn.utils.remove_weight_norm(module)


def test_half_a_pair_is_named() -> None:
    with pytest.raises(
        CheckpointError, match=r"gan\.pt: tensor ups\.0\.weight_g is half of a weight norm; its direction"
    ):
        weight_norm.fold(PATH, {"ups.0.weight_g": torch.ones(2, 1, 1)})
    with pytest.raises(
        CheckpointError, match=r"parametrizations\.weight\.original1 is half .* its magnitude is missing"
    ):
        weight_norm.fold(PATH, {"ups.0.parametrizations.weight.original1": torch.ones(2, 1, 1)})


def test_a_pair_that_does_not_fit_is_named() -> None:
    with pytest.raises(
        CheckpointError, match=r"weight_g has shape \(3, 1, 1\); it does not fit a\.weight_v with shape"
    ):
        weight_norm.fold(PATH, {"a.weight_g": torch.ones(3, 1, 1), "a.weight_v": torch.ones(2, 4, 5)})


def test_a_weight_that_is_there_twice_is_named() -> None:
    pair = {"a.weight_g": torch.ones(2, 1), "a.weight_v": torch.ones(2, 4)}

    with pytest.raises(CheckpointError, match=r"has a\.weight twice: as such, and as a\.weight_g and a\.weight_v"):
        weight_norm.fold(PATH, pair | {"a.weight": torch.ones(2, 4)})
    with pytest.raises(CheckpointError, match=r"has the weight norm of a\.weight twice"):
        weight_norm.fold(PATH, pair | {"a.parametrizations.weight.original0": torch.ones(2, 1)})


@pytest.mark.parametrize("form", ["hook", "parametrization"])
def test_spectral_norm_is_named(form: str) -> None:
    apply = torch.nn.utils.spectral_norm if form == "hook" else parametrizations.spectral_norm

    with pytest.raises(CheckpointError, match="a parametrisation other than weight_norm, such as spectral_norm"):
        weight_norm.fold(PATH, apply(nn.Conv1d(3, 4, 5)).state_dict())


def test_a_direction_of_zeros_is_named(tmp_path: Path) -> None:
    state = dict(torch.load(GOLDEN / "gan_v3.pt", weights_only=True))
    weight = state.pop("conv_pre.weight")
    state |= {"conv_pre.weight_g": torch.ones(len(weight), 1, 1), "conv_pre.weight_v": torch.zeros_like(weight)}
    torch.save(state, tmp_path / "gan.pt")

    with pytest.raises(CheckpointError, match=r"tensor conv_pre\.weight contains NaN"):
        GomiGAN.from_pretrained(tmp_path / "gan.pt")
