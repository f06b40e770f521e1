"""The options of gomin-export's commands, in records; see `gomin_client.cli.records`.

A record is a frozen dataclass whose fields are options. `network_options.py` has the records of single networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gomin_client.contract.model import FP32, PRECISIONS
from gomin_client.errors import UsageError

if TYPE_CHECKING:
    from gomin_export.repository.config import Deployment

DEFAULT_REPOSITORY = Path("model_repository")

MODEL = "Model"
_PARITY = "Parity gate"
DEPLOYMENT = "Deployment: settings of config.pbtxt"
_PLACING = "Placing"

Checkpoint = Annotated[
    str,
    typer.Option(
        "--ckpt",
        metavar="FILE",
        help="The checkpoint: a state dict (.pt, .pth, .safetensors), or one of the Hugging Face Hub, "
        "hf://USER/REPOSITORY[@REVISION]/FILE.",
    ),
]
Repository = Annotated[Path, typer.Option(help="The Triton model repository to export into; made if missing.")]


def panel_option(panel: str, text: str, *names: str, metavar: str | None = None) -> Any:
    """An option in one of the panels of a command's help, where `text` names the default."""
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=panel, show_default=False)


@dataclass(frozen=True)
class CheckpointOptions:
    """How a checkpoint is read."""

    config: Annotated[
        Path | None,
        panel_option(MODEL, "JSON file of config values that win over the values that the checkpoint's tensors show."),
    ] = None
    key: Annotated[
        str | None,
        panel_option(MODEL, "State dict to take from a checkpoint with several, such as ema."),
    ] = None
    sha256: Annotated[
        str | None,
        typer.Option(
            help="SHA-256 that the checkpoint file must have, in hexadecimal. Default: any.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class GraphFormOptions:
    """The form of the ONNX graph.

    Raises:
        UsageError: the precision is unknown.
    """

    precision: Annotated[
        str,
        panel_option(
            MODEL,
            f"Number format inside the model: {' or '.join(PRECISIONS)}. Inputs and outputs are always float32. "
            "Default: fp32.",
        ),
    ] = FP32
    lowering: Annotated[
        bool,
        panel_option(
            MODEL,
            "Export an exact rewrite of the network with fewer operators (default), or its plain form.",
            "--lowering/--no-lowering",
        ),
    ] = True

    def __post_init__(self) -> None:
        _require_precision(self.precision)


@dataclass(frozen=True)
class ToleranceOptions:
    """The tolerance of the parity gate.

    Raises:
        UsageError: a bound is out of range.
    """

    atol: Annotated[
        float | None,
        panel_option(
            _PARITY,
            "Largest difference allowed from PyTorch in float64. Default: 1e-5 for fp32, or 4 times the error of "
            "PyTorch in float32 if that is more; no bound for fp16. An explicit bound is exact.",
        ),
    ] = None
    min_snr: Annotated[
        float | None,
        panel_option(
            _PARITY, "Lowest ratio of signal to error allowed, in dB. Default: 40 for fp16, no bound for fp32."
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.atol is not None and not 0 <= self.atol < math.inf:
            raise UsageError(f"--atol {self.atol}: expected 0 or more")
        if self.min_snr is not None and not math.isfinite(self.min_snr):
            raise UsageError(f"--min-snr {self.min_snr}: expected a number of dB")


@dataclass(frozen=True)
class DeploymentOptions:
    """Settings of config.pbtxt that all networks have."""

    max_batch_size: Annotated[
        int | None,
        panel_option(DEPLOYMENT, "Largest batch of one call of the model. Default: 16."),
    ] = None
    batch_delay_us: Annotated[
        int | None,
        panel_option(
            DEPLOYMENT,
            "Time that a request may wait for others of its length, to run as one batch, in microseconds. "
            "Default: 0; 500 for a denoiser.",
        ),
    ] = None
    max_frames: Annotated[
        int | None,
        panel_option(
            DEPLOYMENT,
            "Largest number of mel frames in one request, all its items together; longer requests are refused. "
            "Default: the number that 2 GiB of memory hold; with TensorRT at most 512.",
        ),
    ] = None
    queue_size: Annotated[
        int | None,
        panel_option(
            DEPLOYMENT,
            "Largest number of waiting requests; others are refused at once. Any bound on the queue makes some "
            "requests wait for half a second, unless several instances are idle. Default: none; 64 for a chain.",
        ),
    ] = None
    queue_timeout_s: Annotated[
        int | None,
        panel_option(
            DEPLOYMENT,
            "Time after which a request that still waits is refused, in seconds. Any bound on the queue makes some "
            "requests wait for half a second, unless several instances are idle. Default: never; 14400 for a chain.",
        ),
    ] = None
    instances: Annotated[
        int | None,
        panel_option(
            DEPLOYMENT, "Number of copies of the ONNX model that run at the same time, on each GPU. Default: 1."
        ),
    ] = None
    instance_kind: Annotated[
        str | None,
        panel_option(
            DEPLOYMENT, "Hardware of the instances: auto (GPUs if there are any), cpu, or gpu. Default: auto."
        ),
    ] = None
    threads: Annotated[
        int | None,
        panel_option(DEPLOYMENT, "Number of CPU threads of each instance. Default: 0, one for each core."),
    ] = None
    warm_up: Annotated[
        list[str] | None,
        panel_option(
            DEPLOYMENT,
            "A request that each instance answers before it counts as ready; repeatable. Default: 64.",
            metavar="FRAMES|BATCHxFRAMES|none",
        ),
    ] = None
    cudnn_search: Annotated[
        str | None,
        panel_option(
            DEPLOYMENT,
            "How cuDNN chooses an algorithm for each new length: heuristic, exhaustive (slow if lengths vary), or "
            "default (one fixed algorithm, often slow). Default: heuristic.",
        ),
    ] = None
    tf32: Annotated[
        bool | None,
        panel_option(DEPLOYMENT, "Let GPUs round float32 products to TensorFloat-32. Default: no.", "--tf32/--no-tf32"),
    ] = None
    accelerator: Annotated[
        str | None,
        panel_option(
            DEPLOYMENT,
            "Accelerator in NVIDIA's container: cuda or tensorrt (GPU instances only), openvino (CPU instances "
            "only); written from documentation, not measured. Default: CUDA on GPUs, otherwise the CPU.",
        ),
    ] = None
    tensorrt_opt: Annotated[
        str | None,
        panel_option(
            DEPLOYMENT,
            "Shape that TensorRT chooses its kernels for. Its largest shape follows from --max-batch-size and "
            "--max-frames, for a denoiser --tile-frames. Default: 4x512.",
            metavar="BATCHxFRAMES",
        ),
    ] = None
    tensorrt_cache: Annotated[
        str | None,
        panel_option(
            DEPLOYMENT,
            "Directory on the server where TensorRT keeps its engines; its parent must exist. Only the server may "
            "write there. Default: /var/cache/gomin_tensorrt.",
            metavar="DIRECTORY",
        ),
    ] = None

    def build(self) -> Deployment:
        """The settings, without those of a single network.

        Raises:
            UsageError: a value is out of range.
        """
        from gomin_export.repository.config import Deployment

        values = {name: value for name, value in vars(self).items() if name not in ("warm_up", "tensorrt_opt")}
        opt = None if self.tensorrt_opt is None else _shape("--tensorrt-opt", self.tensorrt_opt)
        return Deployment(**values, warm_up=_warm_up_shapes(self.warm_up), tensorrt_opt=opt)


@dataclass(frozen=True)
class PlacingOptions:
    """How models are placed in the repository."""

    overwrite_config: Annotated[
        bool,
        panel_option(DEPLOYMENT, "Replace an existing config.pbtxt; manual edits are lost.", "--overwrite-config"),
    ] = False
    version: Annotated[
        int | None,
        panel_option(_PLACING, "Version number in the repository. Default: the next free one.", "--version"),
    ] = None
    keep: Annotated[
        int | None,
        panel_option(_PLACING, "Number of versions of a model to keep; older ones are removed. Default: all."),
    ] = None
    dry_run: Annotated[
        bool,
        panel_option(_PLACING, "Print the changes without writing anything.", "--dry-run"),
    ] = False


@dataclass(frozen=True)
class DeployedOptions:
    """The deployed models to verify."""

    repository: Annotated[
        Path | None,
        typer.Option(
            help="The repository to verify; with --url, the repository of the reference. Default: model_repository.",
            show_default=False,
        ),
    ] = None
    url: Annotated[
        str | None,
        typer.Option(help="A live server to verify: grpc://HOST:PORT, http://HOST:PORT or HOST:PORT (gRPC)."),
    ] = None
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="gan, diffusion, the name of a model, or all models of the reference."),
    ] = "all"


@dataclass(frozen=True)
class ReferenceOptions:
    """The reference that deployed models are compared with.

    Raises:
        UsageError: a value is out of range.
    """

    ckpt: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Compare with this checkpoint, run by PyTorch, and not with the cases that were recorded.",
        ),
    ] = None
    version: Annotated[
        int | None,
        typer.Option(
            "--version", help="Version to verify. Default: the reference's newest, or with --ckpt the deployed one."
        ),
    ] = None
    precision: Annotated[
        str | None, typer.Option(help="Expected number format. Default: as recorded, or with --ckpt fp32.")
    ] = None

    def __post_init__(self) -> None:
        if self.precision is not None:
            _require_precision(self.precision)
        if self.version is not None and self.version < 1:
            raise UsageError(f"--version {self.version}: Triton's versions begin at 1")


def _require_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: expected {' or '.join(PRECISIONS)}")


def _warm_up_shapes(texts: list[str] | None) -> list[tuple[int, int]] | None:
    """Warm-up requests as (batch, frames); empty for "none", None if the option was not given.

    Raises:
        UsageError: a text is not of the form that the option's help shows.
    """
    if not texts:
        return None
    if texts == ["none"]:
        return []
    shapes = []
    for text in texts:
        numbers = text.split("x")
        if not all(number.isdecimal() for number in numbers) or len(numbers) > 2:
            raise UsageError(f"--warm-up {text}: expected FRAMES, BATCHxFRAMES, or none alone")
        shapes.append((int(numbers[0]) if len(numbers) == 2 else 1, int(numbers[-1])))
    return shapes


def _shape(option: str, text: str) -> tuple[int, int]:
    """(batch, frames) from BATCHxFRAMES.

    Raises:
        UsageError: the text has another form.
    """
    batch, _, frames = text.partition("x")
    if not (batch.isdecimal() and frames.isdecimal()):
        raise UsageError(f"{option} {text}: expected BATCHxFRAMES")
    return int(batch), int(frames)
