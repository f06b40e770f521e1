"""From a checkpoint to a model in a repository: load, export, prove parity, place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch

from gomin_client import contract
from gomin_client.contract import ModelContract
from gomin_export import onnx_export, parity, repository
from gomin_export.checkpoints import checkpoint_sha256, load_network
from gomin_export.networks import DiffusionWrapper, GomiGAN

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What an export placed.

    Attributes:
        models: directories of the models' new versions.
        cases: the comparisons that the parity gate made.
    """

    models: list[Path]
    cases: list[parity.Case]

    @property
    def worst_case(self) -> parity.Case:
        """The comparison with the largest difference."""
        return max(self.cases, key=lambda case: case.max_abs_error)


def export_gan(
    checkpoint: Path,
    model_repository: Path,
    overrides: Mapping[str, Any] | None = None,
    key: str | None = None,
    say: Say = lambda _: None,
) -> Exported:
    """Export a FiLM-GAN checkpoint as model gomin_gan.

    Args:
        checkpoint: the file.
        model_repository: where the model goes; made if missing.
        overrides: config values that win over what the tensors show.
        key: which entry of a wrapped checkpoint to take.
        say: called with a line before each stage.

    Raises:
        CheckpointError: the file is not a usable GAN checkpoint.
        ParityError: the exported model differs from the network.
        RepositoryError: the repository cannot take the model.
    """
    say(f"loading {checkpoint}")
    network = load_network(GomiGAN, checkpoint, overrides, key)
    sha256 = checkpoint_sha256(checkpoint)
    model = ModelContract(contract.GAN, network.mel_config, network.halo_frames)
    repository.check_contract(model_repository, contract.GAN_MODEL, model)
    with repository.staging(model_repository) as stage:
        files = stage / contract.GAN_MODEL
        files.mkdir()
        path = files / onnx_export.MODEL_FILE
        say(f"exporting {contract.GAN_MODEL} ({_millions(network)} parameters) to ONNX")
        onnx_export.export_gan(network, path, _metadata(model, sha256))
        say("comparing ONNX Runtime with PyTorch")
        cases = parity.check_gan(network, path)
        version = repository.place(model_repository, [repository.StagedModel(contract.GAN_MODEL, model, files)], sha256)
    return Exported([model_repository / contract.GAN_MODEL / str(version)], cases)


def export_diffusion(
    checkpoint: Path,
    model_repository: Path,
    overrides: Mapping[str, Any] | None = None,
    key: str | None = None,
    say: Say = lambda _: None,
) -> Exported:
    """Export a FiLM-DiffWave checkpoint as models gomin_denoiser (one step) and gomin_diffusion (the chain).

    Arguments and errors are those of `export_gan`.
    """
    say(f"loading {checkpoint}")
    network = load_network(DiffusionWrapper, checkpoint, overrides, key)
    sha256 = checkpoint_sha256(checkpoint)
    settings = (network.mel_config, network.halo_frames, network.model.num_diffusion_steps)
    denoiser = ModelContract(contract.DENOISER, *settings)
    diffusion = ModelContract(contract.DIFFUSION, *settings)
    repository.check_contract(model_repository, contract.DENOISER_MODEL, denoiser)
    repository.check_contract(model_repository, contract.DIFFUSION_MODEL, diffusion)
    with repository.staging(model_repository) as stage:
        denoiser_files = stage / contract.DENOISER_MODEL
        denoiser_files.mkdir()
        path = denoiser_files / onnx_export.MODEL_FILE
        say(f"exporting {contract.DENOISER_MODEL} ({_millions(network)} parameters) to ONNX")
        onnx_export.export_denoiser(network, path, _metadata(denoiser, sha256))
        say("comparing ONNX Runtime with PyTorch")
        cases = parity.check_denoiser(network, path)
        diffusion_files = stage / contract.DIFFUSION_MODEL
        diffusion_files.mkdir()
        model_text = repository.template(contract.DIFFUSION_MODEL, "model.py")
        (diffusion_files / "model.py").write_text(model_text, encoding="utf-8")
        sampler_text = (resources.files("gomin_client") / "sampling.py").read_bytes()
        (diffusion_files / "sampling.py").write_bytes(sampler_text)
        version = repository.place(
            model_repository,
            [
                repository.StagedModel(contract.DENOISER_MODEL, denoiser, denoiser_files),
                repository.StagedModel(contract.DIFFUSION_MODEL, diffusion, diffusion_files),
            ],
            sha256,
        )
    placed = [model_repository / name / str(version) for name in (contract.DENOISER_MODEL, contract.DIFFUSION_MODEL)]
    return Exported(placed, cases)


def _metadata(model: ModelContract, sha256: str) -> dict[str, str]:
    return {
        **model.to_parameters(),
        "gomin.checkpoint_sha256": sha256,
        "gomin.exporter": f"gomin-triton {metadata.version('gomin-triton')}, torch {torch.__version__}",
    }


def _millions(network: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} million"
