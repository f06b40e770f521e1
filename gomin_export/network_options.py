"""Options that only the command of one network has; `Architecture.options` names the record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Protocol

from gomin_client.contract.choices import SAMPLERS, SCHEDULES
from gomin_export.choices import NATIVE, TARGETS
from gomin_export.options import DEPLOYMENT, MODEL, panel_option

if TYPE_CHECKING:
    from gomin_export.plan import ExportOptions


class OwnOptions(Protocol):
    """A record of options that only the command of one network has."""

    def applied_to(self, options: ExportOptions) -> ExportOptions:
        """The options of an export with these options added."""
        ...


@dataclass(frozen=True)
class NoOptions:
    """The record of a network without options of its own."""

    def applied_to(self, options: ExportOptions) -> ExportOptions:
        """The same options."""
        return options


@dataclass(frozen=True)
class TargetOptions:
    """Options of a GAN."""

    target: Annotated[
        str,
        panel_option(
            MODEL,
            f"Hardware that the model runs on: {', '.join(TARGETS)}. cpu needs half of the multiplications and twice "
            "the weights: faster on CPUs, of no use on GPUs. native has operators of gomin-triton's own library in "
            "addition: faster still, where that library is installed. Default: any.",
        ),
    ] = TARGETS[0]

    def applied_to(self, options: ExportOptions) -> ExportOptions:
        """See `OwnOptions`.

        Raises:
            UsageError: the target is unknown, or is combined with an option that excludes it.
        """
        return replace(options, graph=replace(options.graph, target=self.target))


@dataclass(frozen=True)
class ChainOptions:
    """Options of a diffusion model."""

    target: Annotated[
        str,
        panel_option(
            MODEL,
            f"Hardware that the denoiser runs on: {TARGETS[0]} or {NATIVE}. {NATIVE} computes a layer by one operator "
            "of gomin-triton's own library, with fewer multiplications: faster on CPUs that have this library. "
            f"Default: {TARGETS[0]}.",
        ),
    ] = TARGETS[0]

    sampler: Annotated[
        str | None,
        panel_option(DEPLOYMENT, f"Sampler of requests that choose none: {SAMPLERS}. Default: ddpm."),
    ] = None
    steps: Annotated[
        int | None,
        panel_option(
            DEPLOYMENT,
            "Number of denoiser steps, of samplers that take any number. Default: the sampler's own number.",
        ),
    ] = None
    schedule: Annotated[
        str | None,
        panel_option(
            DEPLOYMENT, f"Noise schedule that the model was trained with: {', '.join(SCHEDULES)}. Default: linear."
        ),
    ] = None
    eta: Annotated[
        float | None,
        panel_option(DEPLOYMENT, "Share of fresh noise in each ddim step, 0 to 1. Default: 0."),
    ] = None
    timesteps: Annotated[
        str | None,
        panel_option(
            DEPLOYMENT,
            "The timestep of each denoiser step, such as 49,30,12,0, of samplers that take any number of steps. "
            "Default: evenly spaced.",
        ),
    ] = None
    tile_frames: Annotated[
        int | None,
        panel_option(
            DEPLOYMENT,
            "Largest number of mel frames in one denoiser call, which bounds its memory; longer mels are denoised "
            "in tiles. Default: 512.",
        ),
    ] = None
    stream: Annotated[
        bool,
        panel_option(
            DEPLOYMENT,
            "Also make gomin_diffusion_stream, which sends what each step predicts over a gRPC stream. Costs a process "
            "of the server.",
        ),
    ] = False

    def applied_to(self, options: ExportOptions) -> ExportOptions:
        """See `OwnOptions`.

        Raises:
            UsageError: the target is unknown, or is combined with an option that excludes it.
        """
        from gomin_client.sampling.settings import SamplerSettings

        asked = SamplerSettings(self.sampler, self.steps, self.schedule, self.eta, self.timesteps)
        sampling = asked if asked.to_parameters() else None
        deployment = replace(options.deployment, sampling=sampling, tile_frames=self.tile_frames)
        graph = replace(options.graph, target=self.target)
        return replace(options, graph=graph, deployment=deployment, stream=self.stream)
