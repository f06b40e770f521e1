"""A third network is one record: this module has a toy network and exports it, and changes nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gomin_client import Vocoder
from gomin_client.contract import model as contract
from gomin_client.contract.model import ModelContract
from gomin_client.contract.repository import read_config
from gomin_client.transports.local import LocalTransport
from gomin_export import pipeline
from gomin_export.checkpoints import CheckpointReader, detect_kind
from gomin_export.errors import CheckpointError
from gomin_export.networks import GomiGAN, registry
from gomin_export.networks.base import MelInverter
from gomin_export.networks.registry import ARCHITECTURES, Architecture
from gomin_export.networks.served import EnsembleModel, OnnxModel
from gomin_export.onnx.forms import GraphOptions, OnnxForm, vocoder_form
from tests.support import GOLDEN


@dataclass(frozen=True)
class ToyConfig:
    n_mels: int = 4
    hop_length: int = 4

    @property
    def halo_frames(self) -> int:
        return 1  # kernel 3

    @property
    def bytes_per_frame(self) -> int:
        return 4 * (self.n_mels + self.hop_length)

    @classmethod
    def from_tensors(cls, tensors: CheckpointReader, overrides: Mapping[str, Any]) -> ToyConfig:
        read = {"n_mels": tensors.size("head.weight", 1, rank=3), "hop_length": tensors.size("head.weight", 0, rank=3)}
        return cls(**{**read, **overrides})


class ToyHead(MelInverter):
    """A linear head: each frame and its neighbours give the frame's samples."""

    kind = "toy"
    config_class = ToyConfig

    def __init__(self, n_mels: int, hop_length: int) -> None:
        super().__init__(n_mels, sample_rate=16000, win_length=4 * hop_length, hop_length=hop_length)
        self.config = ToyConfig(n_mels, hop_length)
        self.head = nn.Conv1d(n_mels, hop_length, 3, padding=1)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, M, T) -> (B, 1, hop_length·T)."""
        return torch.tanh(self.head(mel)).transpose(1, 2).flatten(1).unsqueeze(1)


def toy_form(network: ToyHead, _options: GraphOptions) -> OnnxForm:
    return vocoder_form(network, network.n_mels)


TOY_VOCODER = OnnxModel(
    "gomin_toy",
    contract.GAN,
    cases="gomin_export.parity.cases:vocoder_cases",
    template="gomin_gan",
    form=f"{__name__}:toy_form",
)

TOY = Architecture(
    name="toy",
    help="Export a toy.",
    signature="head.",
    network=f"{__name__}:ToyHead",
    models=(
        registry.FRONT_END,
        TOY_VOCODER,
        EnsembleModel(
            "gomin_reconstruct_toy",
            contract.RECONSTRUCT,
            cases="gomin_export.parity.cases:reconstruction_cases",
            template="gomin_reconstruct",
            front_end=registry.FRONT_END.name,
            vocoder=TOY_VOCODER,
        ),
    ),
)


@pytest.fixture
def toy() -> Iterator[Architecture]:
    registry.register(TOY)
    yield TOY
    del ARCHITECTURES["toy"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "toy.pt"
    torch.save(ToyHead(6, 8).state_dict(), path)
    return path


@pytest.mark.usefixtures("toy")
def test_a_third_network_is_exported_and_served(checkpoint: Path, tmp_path: Path) -> None:
    home = tmp_path / "models"

    exported = pipeline.export("toy", checkpoint, home)

    # for the vocoder the grid, and a mel in windows
    counts = {report.model: len(report.outcomes) for report in exported.reports}
    assert counts == {"gomin_mel": 30, "gomin_toy": 21, "gomin_reconstruct_toy": 3}
    assert all(report.failed == [] for report in exported.reports)
    described = ModelContract.from_parameters("gomin_toy", read_config(home / "gomin_toy/config.pbtxt"))
    assert (described.mel.n_mels, described.mel.hop_length, described.halo_frames) == (6, 8, 1)
    assert pipeline.export("toy", checkpoint, home).plan.exists
    network = ToyHead.from_pretrained(checkpoint)
    mel = np.random.default_rng(0).uniform(0, 1, (6, 30)).astype(np.float32)
    with Vocoder(f"local:{home}", model="gomin_toy", window=7) as vocoder, torch.no_grad():
        np.testing.assert_allclose(
            vocoder.synthesize(mel), network(torch.from_numpy(mel)[None])[0, 0].numpy(), rtol=0, atol=1e-6
        )
        expected = vocoder.reconstruct(mel[0], 16000, trim=False)
    with LocalTransport(home) as transport:
        answer = transport.infer("gomin_reconstruct_toy", 1, {"audio": mel[np.newaxis, :1]})["reconstruction"]
    np.testing.assert_array_equal(answer[0, 0], expected)


@pytest.mark.usefixtures("toy")
def test_checkpoints_of_a_third_network_are_told_apart(checkpoint: Path) -> None:
    assert detect_kind(checkpoint) == "toy"
    with pytest.raises(CheckpointError, match=r"is a toy checkpoint \(it has tensors head\.\*\), not a gan one"):
        GomiGAN.from_pretrained(checkpoint)
    with pytest.raises(CheckpointError, match=r"is a gan checkpoint .*, not a toy one"):
        ToyHead.from_pretrained(GOLDEN / "gan_v3.pt")


def test_names_are_unique(toy: Architecture) -> None:
    with pytest.raises(ValueError, match="architecture toy is registered already"):
        registry.register(toy)
    with pytest.raises(ValueError, match="model gomin_toy belongs to another architecture"):
        registry.register(dataclasses.replace(toy, name="other"))
    with pytest.raises(ValueError, match="architecture 'vocos': expected gan or diffusion"):
        registry.get("vocos")


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_name_in_a_record_leads_to_code(architecture: Architecture) -> None:
    assert architecture.network_class.kind == architecture.name
    assert dataclasses.is_dataclass(architecture.option_record)
    assert callable(architecture.option_record.applied_to)
    for model in architecture.models:
        assert ("platform" if isinstance(model, EnsembleModel) else "backend") in model.template_text("config.pbtxt")
