"""The Triton models that a network becomes: how each is written, and how the parity gate tests it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pkgutil import resolve_name
from typing import TYPE_CHECKING, ClassVar

from gomin_client.contract.model import RECONSTRUCT_DIFFUSION, ModelContract

if TYPE_CHECKING:
    from pathlib import Path

    from gomin_client.mel.features import MelConfig
    from gomin_client.native.library import OperatorLibrary
    from gomin_client.transports.base import Parameters
    from gomin_export.networks.base import MelInverter
    from gomin_export.onnx.forms import GraphOptions
    from gomin_export.parity.gate import Case, Inputs
    from gomin_export.repository.config import Deployment

MEMORY_BUDGET = 2 * 1024**3  # bytes that one request may need beyond the loaded model

# Triton's Python stub always writes bytecode. A server in poll mode takes a new file for a change of the model, and
# loads the model again. If a file has the name of the bytecode directory, Python runs without one.
NO_BYTECODE = "A file in place of the directory, so that a server in poll mode sees no bytecode appear.\n"


@dataclass(frozen=True)
class ServedModel(ABC):
    """One Triton model.

    Attributes:
        name: its name in the repository.
        kind: the kind of its contract, one of `gomin_client.contract.model.KINDS`: which tensors it has.
        cases: "module:name" of the function that makes its parity cases.
        template: directory of its files in `gomin_export/templates`; its own name if left out.
        batch_delay_us: default of --batch-delay-us: microseconds that a request may wait for others.
        queue_size: default of --queue-size: largest number of waiting requests; None: no bound.
        queue_timeout_s: default of --queue-timeout-s: seconds after which a request that still waits is refused; None:
            never.
    """

    has_weights: ClassVar[bool] = False  # whether its files contain the network's weights
    is_shared: ClassVar[bool] = False  # whether it is made from the mel settings alone, for all networks that have them

    is_optional: ClassVar[bool] = False  # whether an export makes it only if it is asked to
    is_batched: ClassVar[bool] = True  # whether Triton knows the batch axis, which config.pbtxt then leaves out

    name: str
    kind: str
    cases: str
    template: str = ""
    batch_delay_us: int = 0
    queue_size: int | None = None
    queue_timeout_s: int | None = None

    def template_text(self, file: str) -> str:
        """Text of one of its template files."""
        home = resources.files("gomin_export") / "templates" / (self.template or self.name)
        return (home / file).read_text(encoding="utf-8")

    @property
    def holds_chain(self) -> str:
        """Name of the model whose config.pbtxt has the default sampling chain."""
        return self.name

    @abstractmethod
    def bytes_per_frame(self, network: MelInverter) -> int:
        """Peak memory of a request beyond that of the loaded model, in bytes per mel frame of all its items."""

    def described(self, network: MelInverter) -> ModelContract:
        """Its contract with clients, with the default bound on the length of requests."""
        return ModelContract(
            self.kind,
            network.mel_config,
            network.halo_frames,
            network.num_diffusion_steps,
            max(1, MEMORY_BUDGET // self.bytes_per_frame(network)),
        )

    def config_values(self, described: ModelContract, deployment: Deployment) -> dict[str, str]:
        """Values for placeholders that only its config.pbtxt template has.

        Raises:
            UsageError: the deployment settings do not suit the model.
        """
        return {}

    def request_parameters(
        self,
        described: ModelContract,
        deployment: Deployment,
        kept: Path | None,
    ) -> Parameters:
        """Parameters of the gate's requests: the ones that a request without parameters gets.

        Args:
            described: the model's contract.
            deployment: settings of a new config.pbtxt.
            kept: the existing config.pbtxt of the model `holds_chain`, if it is kept.
        """
        return {}

    @abstractmethod
    def write(self, files: Path, network: MelInverter, graph: GraphOptions, metadata: Mapping[str, str]) -> None:
        """Write what Triton serves.

        Args:
            files: the version directory.
            network: with the weights of the checkpoint.
            graph: choices for an ONNX graph.
            metadata: to store in an ONNX file.
        """

    @abstractmethod
    def gate_cases(self, network: MelInverter, parameters: Parameters) -> list[Case]:
        """The cases of the parity gate; `parameters` are those of the requests."""

    def window_cases(self, network: MelInverter) -> list[Case]:
        """Cases that are sent in windows, to test the halo."""
        return []

    def inspect(
        self, files: Path, described: ModelContract, inputs: Inputs, library: OperatorLibrary | None = None
    ) -> dict[str, int]:
        """Check the signature of what was written, and run it once.

        Args:
            files: the version directory.
            described: the contract that it must have.
            inputs: tensors for the run.
            library: the library of its operators; None if it has only ONNX's.

        Returns:
            Execution provider → number of operators that it ran; empty if the model runs none itself.

        Raises:
            ParityError: it does not have the tensors of its contract, or does not run.
        """
        return {}


@dataclass(frozen=True, kw_only=True)
class OnnxModel(ServedModel):
    """A model that ONNX Runtime runs.

    Attributes:
        form: "module:name" of the function (network, `GraphOptions`) → `OnnxForm`.
    """

    has_weights: ClassVar[bool] = True

    form: str

    def bytes_per_frame(self, network: MelInverter) -> int:
        """The network's own."""
        return network.bytes_per_frame

    def write(self, files: Path, network: MelInverter, graph: GraphOptions, metadata: Mapping[str, str]) -> None:
        """Export the network to an ONNX file."""
        from gomin_export.onnx import export

        export.write(resolve_name(self.form)(network, graph), files / export.MODEL_FILE, metadata)

    def gate_cases(self, network: MelInverter, parameters: Parameters) -> list[Case]:
        """See `ServedModel.gate_cases`; the requests have no parameters."""
        cases: list[Case] = resolve_name(self.cases)(network)
        return cases

    def window_cases(self, network: MelInverter) -> list[Case]:
        """A mel of three windows."""
        from gomin_export.parity.cases import windowed

        return windowed(resolve_name(self.cases), network)

    def inspect(
        self, files: Path, described: ModelContract, inputs: Inputs, library: OperatorLibrary | None = None
    ) -> dict[str, int]:
        """See `check_signature`."""
        from gomin_export.onnx.export import MODEL_FILE
        from gomin_export.parity.signature import check_signature

        return check_signature(files / MODEL_FILE, described, inputs, library)


@dataclass(frozen=True)
class ChainModel(ServedModel):
    """A sampling chain: Python code that calls a denoiser model. Its windows are those of the denoiser.

    Attributes:
        program: directory in `gomin_export/templates` of its model.py.
    """

    # The length of tiles bounds the memory of denoiser calls. What grows with the request are the sampler's arrays of
    # its samples. Measured: 40 to 52 bytes per sample at the peak, by sampler; and the request and its answer.
    BYTES_PER_SAMPLE: ClassVar[int] = 64

    program: str = "gomin_diffusion"

    def bytes_per_frame(self, network: MelInverter) -> int:
        """For the sampler's arrays."""
        return self.BYTES_PER_SAMPLE * network.hop_length

    def config_values(self, described: ModelContract, deployment: Deployment) -> dict[str, str]:
        """The default chain, and the length of tiles."""
        from gomin_export.repository.chain import config_values

        return config_values(described, deployment)

    def request_parameters(self, described: ModelContract, deployment: Deployment, kept: Path | None) -> Parameters:
        """The default chain, with its number of steps."""
        from gomin_export.repository.chain import default_chain, read_default_chain

        chain = default_chain(described, deployment) if kept is None else read_default_chain(kept, described)
        return chain.to_parameters()

    def write(self, files: Path, network: MelInverter, graph: GraphOptions, metadata: Mapping[str, str]) -> None:
        """Copy the Triton model and the package `sampling`."""
        from gomin_export.repository.fingerprint import sampling_modules
        from gomin_export.repository.staging import write_file

        program = resources.files("gomin_export") / "templates" / self.program / "model.py"
        write_file(files / "model.py", program.read_bytes())
        package = files / "sampling"
        package.mkdir()
        for module in sampling_modules():
            write_file(package / module.name, module.read_bytes())
        for directory in (files, package):
            write_file(directory / "__pycache__", NO_BYTECODE)

    def gate_cases(self, network: MelInverter, parameters: Parameters) -> list[Case]:
        """The case of the default chain."""
        from gomin_client.sampling.settings import SamplerSettings

        cases: list[Case] = resolve_name(self.cases)(network, SamplerSettings.from_parameters(parameters))
        return cases


@dataclass(frozen=True)
class StreamModel(ChainModel):
    """The twin of a sampling chain that sends an answer after each step."""

    is_optional: ClassVar[bool] = True


def front_end_bytes_per_frame(config: MelConfig) -> int:
    """Peak memory of a mel front end, in bytes per frame. Measured with GOMIN's settings: 17.0 KB of these 20.0."""
    bins = config.n_fft // 2 + 1
    in_float64 = 2 * config.hop_length + 3 * bins + 2 * config.n_mels  # samples, padded; spectrum, power; bands
    return 8 * in_float64 + 4 * (config.hop_length + config.n_mels)


@dataclass(frozen=True)
class FrontEndModel(ServedModel):
    """The mel front end: audio -> mel, for callers that cannot compute mels. One serves all networks of equal settings.

    If a repository has one with other settings under this name, an export gives it another name, see `plan`.
    """

    is_shared: ClassVar[bool] = True
    is_batched: ClassVar[bool] = False

    def bytes_per_frame(self, network: MelInverter) -> int:
        """See `front_end_bytes_per_frame`."""
        return front_end_bytes_per_frame(network.mel_config)

    def described(self, network: MelInverter) -> ModelContract:
        """See `ServedModel.described`; nothing in it depends on the network but the mel settings."""
        return replace(super().described(network), halo_frames=0, num_diffusion_steps=None)

    def write(self, files: Path, network: MelInverter, graph: GraphOptions, metadata: Mapping[str, str]) -> None:
        """Write the ONNX file. `graph` and `metadata` are the network's, and not used."""
        from gomin_export.onnx import export, front_end
        from gomin_export.repository.staging import write_file

        write_file(files / export.MODEL_FILE, front_end.serialized(self.described(network)))

    def gate_cases(self, network: MelInverter, parameters: Parameters) -> list[Case]:
        """See `ServedModel.gate_cases`; the reference is the client's front end."""
        cases: list[Case] = resolve_name(self.cases)(network.mel_config)
        return cases

    def inspect(
        self, files: Path, described: ModelContract, inputs: Inputs, library: OperatorLibrary | None = None
    ) -> dict[str, int]:
        """See `check_signature`."""
        from gomin_export.onnx.export import MODEL_FILE
        from gomin_export.parity.signature import check_signature

        return check_signature(files / MODEL_FILE, described, inputs)


@dataclass(frozen=True, kw_only=True)
class EnsembleModel(ServedModel):
    """The front end and a vocoder in one request: audio -> reconstruction. Triton passes the tensors on.

    A Triton ensemble consists of its config.pbtxt. Its version directory has only the records of the export.

    Attributes:
        front_end: name of the front end's model.
        vocoder: the model that makes the audio.
    """

    front_end: str
    vocoder: ServedModel

    @property
    def holds_chain(self) -> str:
        """See `ServedModel.holds_chain`."""
        return self.vocoder.name

    def bytes_per_frame(self, network: MelInverter) -> int:
        """Of the step that needs more; the front end's memory is free again when the vocoder runs."""
        return max(front_end_bytes_per_frame(network.mel_config), self.vocoder.bytes_per_frame(network))

    def config_values(self, described: ModelContract, deployment: Deployment) -> dict[str, str]:
        """The models that it calls."""
        return {"front_end": self.front_end, "vocoder": self.vocoder.name}

    def request_parameters(self, described: ModelContract, deployment: Deployment, kept: Path | None) -> Parameters:
        """Those of the vocoder: Triton passes request parameters on to every step."""
        return self.vocoder.request_parameters(described, deployment, kept)

    def write(self, files: Path, network: MelInverter, graph: GraphOptions, metadata: Mapping[str, str]) -> None:
        """Nothing: Triton needs the version directory alone."""

    def gate_cases(self, network: MelInverter, parameters: Parameters) -> list[Case]:
        """See `ServedModel.gate_cases`: those of a sampling chain have its settings."""
        cases: list[Case]
        if self.kind == RECONSTRUCT_DIFFUSION:
            from gomin_client.sampling.settings import SamplerSettings

            cases = resolve_name(self.cases)(network, SamplerSettings.from_parameters(parameters))
        else:
            cases = resolve_name(self.cases)(network)
        return cases
