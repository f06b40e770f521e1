"""The default chain of a diffusion model: the sampler settings of requests that choose none, in its config.pbtxt."""

from __future__ import annotations

from pathlib import Path

from gomin_client.contract.model import PARAMETER_PREFIX, ModelContract
from gomin_client.contract.repository import read_config
from gomin_client.errors import UsageError
from gomin_client.sampling.jobs import DiffusionModel
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.sampling.tiling import Tiling
from gomin_export.repository.bounds import tile_frames
from gomin_export.repository.config import Deployment, parameter_lines


def default_chain(described: ModelContract, deployment: Deployment) -> SamplerSettings:
    """The default chain of a new config.pbtxt, with its number of steps.

    Raises:
        UsageError: the settings contradict each other or the model.
    """
    assert described.num_diffusion_steps is not None  # every diffusion contract has them
    try:
        return (deployment.sampling or SamplerSettings()).resolved(described.num_diffusion_steps)
    except ValueError as error:
        raise UsageError(str(error)) from error


def read_default_chain(config: Path, described: ModelContract) -> SamplerSettings:
    """The default chain of an existing config.pbtxt, with its number of steps.

    Raises:
        UsageError: its settings contradict each other or the model.
    """
    assert described.num_diffusion_steps is not None  # every diffusion contract has them
    try:
        return SamplerSettings.from_config(read_config(config)).resolved(described.num_diffusion_steps)
    except ValueError as error:
        raise UsageError(f"{config}: {error}") from error


def config_values(described: ModelContract, deployment: Deployment) -> dict[str, str]:
    """Values for the placeholders of the diffusion model's template.

    Raises:
        UsageError: the settings contradict each other or the model.
    """
    assert described.num_diffusion_steps is not None  # every diffusion contract has them
    chain = default_chain(described, deployment)
    frames = tile_frames(described, deployment)
    try:
        tiling = Tiling(described.mel.hop_length, described.halo_frames, frames)
        DiffusionModel(described.num_diffusion_steps, tiling, chain)
    except ValueError as error:
        raise UsageError(str(error)) from error
    lines = parameter_lines({PARAMETER_PREFIX + name: f"{value}" for name, value in chain.to_parameters().items()})
    return {"sampling": lines.rstrip("\n"), "tile_frames": str(frames)}
