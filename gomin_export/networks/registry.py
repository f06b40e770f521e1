"""The networks that can be exported: one `Architecture` each.

A record names the code of its network as "module:name", which is imported when it is needed. The command line reads
this file without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from gomin_client.contract import model as contract
from gomin_client.contract.model import ModelContract
from gomin_export.choices import NATIVE, TARGETS
from gomin_export.networks.served import (
    ChainModel,
    EnsembleModel,
    FrontEndModel,
    OnnxModel,
    ServedModel,
    StreamModel,
)

if TYPE_CHECKING:
    from gomin_export.network_options import OwnOptions
    from gomin_export.networks.base import MelInverter


@dataclass(frozen=True)
class Architecture:
    """One network and the Triton models that are made from its checkpoints.

    Attributes:
        name: name of its command, also `kind` of its network class.
        help: help text of its command.
        signature: prefix of tensor names that only its checkpoints have.
        network: "module:name" of the network class, a `MelInverter`.
        models: the Triton models, in the order in which they are placed: a model comes after the models that it calls.
        options: "module:name" of the record of command-line options that only its command has, an
            `gomin_export.network_options.OwnOptions`.
        targets: the values of `GraphOptions.target` that its graphs can be made for.
    """

    name: str
    help: str
    signature: str
    network: str
    models: tuple[ServedModel, ...]
    options: str = "gomin_export.network_options:NoOptions"
    targets: tuple[str, ...] = TARGETS[:1]

    @property
    def network_class(self) -> type[MelInverter]:
        """The network class; imports torch."""
        found: type[MelInverter] = resolve_name(self.network)
        return found

    @property
    def option_record(self) -> type[OwnOptions]:
        """The class that `options` names."""
        found: type[OwnOptions] = resolve_name(self.options)
        return found

    def contracts(self, network: MelInverter) -> dict[str, ModelContract]:
        """Triton model → its contract with clients, with the default bound on the length of requests."""
        return {model.name: model.described(network) for model in self.models}


FRONT_END = FrontEndModel(
    contract.MEL_MODEL, contract.FRONT_END, cases="gomin_export.parity.cases:front_end_cases", template="gomin_mel"
)
_GAN_VOCODER = OnnxModel(
    contract.GAN_MODEL,
    contract.GAN,
    form="gomin_export.onnx.forms:gan_form",
    cases="gomin_export.parity.cases:vocoder_cases",
)
_DIFFUSION_VOCODER = ChainModel(
    contract.DIFFUSION_MODEL,
    contract.DIFFUSION,
    cases="gomin_export.parity.cases:chain_cases",
    # half a second more, see `repository.config`, is little for a chain
    queue_size=64,
    queue_timeout_s=4 * 3600,  # a window of the released chain takes two CPU cores a quarter of an hour
)
_DIFFUSION_STREAM = StreamModel(
    contract.DIFFUSION_STREAM_MODEL,
    contract.DIFFUSION_STREAM,
    cases=_DIFFUSION_VOCODER.cases,
    queue_size=_DIFFUSION_VOCODER.queue_size,
    queue_timeout_s=_DIFFUSION_VOCODER.queue_timeout_s,
)

GAN = Architecture(
    name="gan",
    help="Export a GAN checkpoint as the model gomin_gan.\n\nExample: gomin-export gan --ckpt gan_state_dict.pt",
    signature="conv_pre.",
    network="gomin_export.networks.gan:GomiGAN",
    models=(
        FRONT_END,
        _GAN_VOCODER,
        EnsembleModel(
            contract.RECONSTRUCT_MODEL,
            contract.RECONSTRUCT,
            cases="gomin_export.parity.cases:reconstruction_cases",
            front_end=FRONT_END.name,
            vocoder=_GAN_VOCODER,
        ),
    ),
    options="gomin_export.network_options:TargetOptions",
    targets=TARGETS,
)

DIFFUSION = Architecture(
    name="diffusion",
    help="Export a diffusion checkpoint as the models gomin_denoiser (one step) and gomin_diffusion (the whole chain)."
    "\n\nExample: gomin-export diffusion --ckpt diffusion_state_dict.pt",
    signature="model.residual_layers.",
    network="gomin_export.networks.diffusion:DiffusionWrapper",
    models=(
        FRONT_END,
        OnnxModel(
            contract.DENOISER_MODEL,
            contract.DENOISER,
            form="gomin_export.onnx.forms:denoiser_form",
            cases="gomin_export.parity.cases:denoiser_cases",
            # Two instances of the sampler take turns: while the denoiser works for one, the other computes its next
            # signal. Their calls share a batch only if the first one waits for the other. Half a millisecond is enough
            # for short mels (63 executions of 100 calls at 9 frames, 86 without), and adds 25 ms to a single chain of
            # 50 steps. Longer mels take longer between calls, and use the whole machine by themselves. Requests in the
            # queue are started together and need no delay.
            batch_delay_us=500,
        ),
        _DIFFUSION_VOCODER,
        _DIFFUSION_STREAM,
        EnsembleModel(
            contract.RECONSTRUCT_DIFFUSION_MODEL,
            contract.RECONSTRUCT_DIFFUSION,
            cases="gomin_export.parity.cases:chain_reconstruction_cases",
            front_end=FRONT_END.name,
            vocoder=_DIFFUSION_VOCODER,
        ),
    ),
    options="gomin_export.network_options:ChainOptions",
    targets=(TARGETS[0], NATIVE),
)

ARCHITECTURES: dict[str, Architecture] = {}


def register(architecture: Architecture) -> None:
    """Add a network.

    Raises:
        ValueError: its name, or the name of one of its models, is taken.
    """
    taken = {model.name for known in ARCHITECTURES.values() for model in known.models if not model.is_shared}
    if architecture.name in ARCHITECTURES:
        raise ValueError(f"architecture {architecture.name} is registered already")
    for model in architecture.models:
        if model.name in taken:
            raise ValueError(f"model {model.name} belongs to another architecture")
    ARCHITECTURES[architecture.name] = architecture


def get(name: str) -> Architecture:
    """The architecture of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture {name!r}: expected {' or '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


for _architecture in (GAN, DIFFUSION):
    register(_architecture)
