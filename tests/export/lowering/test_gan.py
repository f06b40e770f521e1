"""The lowered GAN equals the GAN, in all combinations of plain and Winograd blocks."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from gomin_export.lowering import LoweredDenoiser, LoweredGAN
from gomin_export.lowering.polyphase import (
    PhasedResBlock,
)
from gomin_export.networks import DiffusionWrapper, GomiGAN
from gomin_export.networks.gan import Snake
from tests.export.lowering.helpers import close, wide_gan


def scatter_alphas(network: torch.nn.Module) -> None:
    """Give every Snake α between 1e-4 and 10 of either sign, and one of 0."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, Snake):
            size = 10 ** (5 * torch.rand(module.alpha.shape, generator=generator, dtype=torch.float64) - 4)
            module.alpha.data = size * torch.randn(module.alpha.shape, generator=generator, dtype=torch.float64).sign()
            module.alpha.data[0] = 0


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("frames", [1, 2, 5, 24])
def test_lowered_gan(tiny_gan: GomiGAN, frames: int, fold: bool) -> None:
    network = copy.deepcopy(tiny_gan).double()
    scatter_alphas(network)
    mel = 1.2 * torch.rand(2, network.n_mels, frames, dtype=torch.float64)

    close(LoweredGAN(network, fold)(mel), network(mel))


def test_the_reference_network_is_not_touched(tiny_gan: GomiGAN, small_diffusion: DiffusionWrapper) -> None:
    for network in (tiny_gan, small_diffusion):
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        LoweredGAN(network) if isinstance(network, GomiGAN) else LoweredDenoiser(network.model)
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("frames", [1, 2, 5, 13])
def test_a_network_on_phases(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some stages with all blocks on phases, some with a part of them, some with none."""
    original = wide_gan().double()
    asked = iter([True, False, True, True])
    monkeypatch.setattr("gomin_export.lowering.gan.phases_pay", lambda *_: next(asked))
    lowered = LoweredGAN(original, winograd=True)

    assert [isinstance(made, PhasedResBlock) for made in lowered.resblocks] == [True, False, True, True]
    mel = 1.2 * torch.rand(2, 8, frames, dtype=torch.float64)
    close(lowered(mel), original(mel))


@pytest.fixture
def graph_for_cpus(repository_for_cpus: Path) -> Path:
    return repository_for_cpus / "gomin_gan/1/model.onnx"


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (3, 2), (1, 50)])
def test_the_graph_takes_any_batch_and_length(graph_for_cpus: Path, batch: int, frames: int) -> None:
    session = onnxruntime.InferenceSession(graph_for_cpus, providers=["CPUExecutionProvider"])
    mel = torch.rand(batch, 8, frames)

    (audio,) = session.run(None, {"mel": mel.numpy()})

    close(torch.from_numpy(audio), wide_gan()(mel), 1e-6)


def test_modulations_are_made_stage_by_stage(graph_for_cpus: Path, tmp_path: Path) -> None:
    """Otherwise those of all stages are held until they are used, in other lengths than the signal's by then."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(graph_for_cpus, options, providers=["CPUExecutionProvider"])
    session.run(None, {"mel": np.zeros((1, 8, 4), np.float32)})
    profile = Path(session.end_profiling()).read_text()

    ran = [part.partition('"')[0].replace("_nchwc", "") for part in profile.split('"name" :"')[1:]]
    made = ran.index("film_generator.convs.1/body/Conv_kernel_time")
    assert max(ran.index(f"resblocks.{i}/convs2.0/Conv_kernel_time") for i in (0, 1)) < made
