"""The models to measure: networks of the released sizes with random weights, in every form."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import THREADS
from gomin_client.contract.model import DENOISER_MODEL, DIFFUSION_MODEL, GAN_MODEL
from gomin_client.native.library import find_library
from gomin_export import pipeline
from gomin_export.choices import NATIVE, TARGETS
from gomin_export.lowering import LoweredGAN
from gomin_export.networks import DiffusionWrapper, GomiGAN
from gomin_export.networks.diffusion import DiffusionConfig
from gomin_export.onnx import export as onnx_export
from gomin_export.onnx.forms import DenoiserStep, GraphOptions, vocoder_form
from gomin_export.plan import ExportOptions
from gomin_export.repository.config import Deployment

SMALL_GAN: dict[str, Any] = {"upsample_in_channels": 192}
SMALL_DIFFUSION: dict[str, Any] = {"residual_layers": 4, "residual_channels": 32}
STEPS = DiffusionConfig.num_diffusion_steps  # of a whole chain
_FRAMES = 12


@dataclass(frozen=True)
class Models:
    """Files of the forms, below one directory.

    Attributes:
        home: the directory.
        quick: small networks, to test the program.
    """

    home: Path
    quick: bool

    def checkpoint(self, model: str) -> Path:
        """A state dict."""
        return self.home / f"{model}.pt"

    def plain(self, model: str) -> Path:
        """The reference network as torch.onnx.export exports it."""
        return self.home / f"{model}.onnx"

    @property
    def polyphase(self) -> Path:
        """The GAN with polyphase activations and no other lowering."""
        return self.home / "polyphase.onnx"

    def repository(self, target: str) -> Path:
        """A model repository that gomin-export made."""
        return self.home / f"repository_{target}"

    @property
    def targets(self) -> list[str]:
        """The targets that the GAN is exported for: native only if its operator library is installed."""
        return [target for target in TARGETS if target != NATIVE or find_library() is not None]

    @property
    def denoisers(self) -> dict[str, Path]:
        """Target → the repository of the diffusion model that is exported for it."""
        plain = {TARGETS[0]: self.repository("cpu")}
        return plain | ({NATIVE: self.repository(NATIVE)} if NATIVE in self.targets else {})

    def network(self, model: str) -> nn.Module:
        """The reference network with its weights."""
        network: nn.Module = reference_network(model, self.quick)
        network.load_state_dict(torch.load(self.checkpoint(model), mmap=True), assign=True)
        return network.eval()

    def gflop(self, model: str, frames: int) -> float:
        """Floating point operations of convolutions and linear layers in the reference network, in 10⁹."""
        if model == DIFFUSION_MODEL:
            return STEPS * self.gflop(DENOISER_MODEL, frames)
        # meta tensors suffice for counting, except for the denoiser, which reads its timesteps
        device = torch.device("meta" if model == GAN_MODEL else "cpu")
        with device, FlopCounterMode(display=False) as counter:
            reference_network(model, self.quick)(**example(model, _FRAMES))
        return float(counter.get_total_flops()) / 1e9 * frames / _FRAMES


def reference_network(model: str, quick: bool) -> nn.Module:
    """A network of the released size, or a small one, with random weights."""
    torch.manual_seed(0)
    if model == GAN_MODEL:
        return GomiGAN(**(SMALL_GAN if quick else {})).eval()
    return DenoiserStep(DiffusionWrapper(**(SMALL_DIFFUSION if quick else {})).model).eval()


def example(model: str, frames: int) -> dict[str, Tensor]:
    """Inputs of one call."""
    generator = torch.Generator().manual_seed(frames)
    mel = torch.rand(1, 128, frames, generator=generator)
    if model == GAN_MODEL:
        return {"mel": mel}
    signal = torch.randn(1, 1, 256 * frames, generator=generator)
    return {"signal": signal, "timestep": torch.tensor([[17.0]]), "mel": mel}


def build(models: Models, say: Any) -> None:
    """Make all forms, which takes some minutes."""
    models.home.mkdir(parents=True, exist_ok=True)
    for target in TARGETS:  # the export of an older exporter would make this one version 2
        shutil.rmtree(models.repository(target), ignore_errors=True)
    for model, kind in ((GAN_MODEL, "gan"), (DENOISER_MODEL, "diffusion")):
        network = reference_network(model, models.quick)
        torch.save(network.state_dict(), models.checkpoint(model))
        say(f"exporting the plain {kind}")
        _export_plain(network, models.plain(model), model)
    gan = reference_network(GAN_MODEL, models.quick)
    assert isinstance(gan, GomiGAN)
    say("exporting the GAN with polyphase activations alone")
    onnx_export.write(vocoder_form(LoweredGAN(gan, fold=False), gan.n_mels), models.polyphase, {})
    deployment = Deployment(threads=THREADS)
    for target in models.targets:
        say(f"gomin-export gan --target {target}")
        options = ExportOptions(graph=GraphOptions(target=target), deployment=deployment)
        pipeline.export("gan", models.checkpoint(GAN_MODEL), models.repository(target), options)
    for target, repository in models.denoisers.items():
        say(f"gomin-export diffusion --target {target}")
        options = ExportOptions(graph=GraphOptions(target=target), deployment=deployment)
        pipeline.export("diffusion", models.checkpoint(DENOISER_MODEL), repository, options)


def _export_plain(network: nn.Module, path: Path, model: str) -> None:
    inputs = {name: tensor.expand(2, *tensor.shape[1:]).clone() for name, tensor in example(model, _FRAMES).items()}
    batch, frames = torch.export.Dim("batch"), torch.export.Dim("frames")
    axes: dict[str, dict[int, Any]] = {
        "mel": {0: batch, 2: frames},
        "signal": {0: batch, 2: 256 * frames},
        "timestep": {0: batch},
    }
    with onnx_export.quiet_exporter():
        program = torch.onnx.export(
            network,
            kwargs=inputs,
            dynamic_shapes={name: axes[name] for name in inputs},
            input_names=list(inputs),
            dynamo=True,
        )
    assert program is not None
    program.save(path)
