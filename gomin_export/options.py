"""The options of gomin-export's commands, in groups; typer reads these at run time, on Python 3.10 too."""

# ruff: noqa: UP045
from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gomin_client.contract.choices import SAMPLERS, SCHEDULES
from gomin_client.contract.model import PRECISIONS
from gomin_export.choices import TARGETS

_MODEL = "Model"
_PARITY = "Parity gate"
_DEPLOYMENT = "Deployment: settings of config.pbtxt"
_PLACING = "Placing"

Checkpoint = Annotated[Path, typer.Option("--ckpt", help="The checkpoint: a state dict (.pt, .pth, .safetensors).")]
Repository = Annotated[Path, typer.Option(help="The Triton model repository to export into; made if missing.")]
Config = Annotated[
    Optional[Path],
    typer.Option(
        help="JSON file of config values that win over what the checkpoint's tensors show.", rich_help_panel=_MODEL
    ),
]
Key = Annotated[
    Optional[str],
    typer.Option(
        help="Which state dict to take from a checkpoint that holds several, say ema.", rich_help_panel=_MODEL
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help=f"Number format inside: {' or '.join(PRECISIONS)}. Inputs and outputs are float32 either way.",
        rich_help_panel=_MODEL,
    ),
]
Lowering = Annotated[
    bool,
    typer.Option(
        "--lowering/--no-lowering",
        help="Rewrite the network exactly into fewer operators, or export its plain form.",
        rich_help_panel=_MODEL,
    ),
]
Target = Annotated[
    Optional[str],
    typer.Option(
        help=f"Where the model is to run: {' or '.join(TARGETS)}. cpu multiplies half as often, in twice the weights: "
        "faster on CPUs, of no use to GPUs. Default: any.",
        rich_help_panel=_MODEL,
        show_default=False,
    ),
]
Atol = Annotated[
    Optional[float],
    typer.Option(
        help="Largest difference allowed from PyTorch in float64. Default: for fp32 1e-5, or 4 times what PyTorch "
        "float32 is off if that is more; for fp16 no bound.",
        rich_help_panel=_PARITY,
        show_default=False,
    ),
]
MinSnr = Annotated[
    Optional[float],
    typer.Option(
        help="Least ratio of signal to error, in dB. Default: 40 for fp16, no bound for fp32.",
        rich_help_panel=_PARITY,
        show_default=False,
    ),
]
MaxBatchSize = Annotated[
    Optional[int],
    typer.Option(
        help="Items that one call of the model may hold. Default: 16.", rich_help_panel=_DEPLOYMENT, show_default=False
    ),
]
BatchDelay = Annotated[
    Optional[int],
    typer.Option(
        "--batch-delay-us",
        help="Microseconds that a request may wait for others of its length, to run as one batch. Default: 0, for a "
        "denoiser 500.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
Instances = Annotated[
    Optional[int],
    typer.Option(
        help="Copies of the ONNX model that run at the same time, on each GPU. Default: 1.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
InstanceKind = Annotated[
    Optional[str],
    typer.Option(
        help="Where they run: auto (GPUs if there are any), cpu, or gpu. Default: auto.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
Threads = Annotated[
    Optional[int],
    typer.Option(
        help="CPU threads of each instance. Default: as many as there are cores.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
WarmUp = Annotated[
    Optional[list[str]],
    typer.Option(
        metavar="FRAMES|BATCHxFRAMES|none",
        help="A request that each instance answers before it counts as ready; may be given several times. Default: 64.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
CudnnSearch = Annotated[
    Optional[str],
    typer.Option(
        help="How cuDNN chooses an algorithm for each new length: heuristic, default, or exhaustive (slow where "
        "lengths vary). Default: heuristic.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
Tf32 = Annotated[
    Optional[bool],
    typer.Option(
        "--tf32/--no-tf32",
        help="Let GPUs round float32 products to TensorFloat-32. Default: no.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
Accelerator = Annotated[
    Optional[str],
    typer.Option(
        help="What must run the model in NVIDIA's container: cuda or tensorrt (GPU instances only), openvino (CPU "
        "instances only); written from documentation, not measured. Default: CUDA on GPUs, else the CPU.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
Sampler = Annotated[
    Optional[str],
    typer.Option(
        help=f"Chain of requests that do not choose theirs: {', '.join(SAMPLERS)}. Default: ddpm, the released one.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
Steps = Annotated[
    Optional[int],
    typer.Option(
        help="Its denoiser steps: of ddim and dpm++, as many as you like. Default: the sampler's own number.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
Schedule = Annotated[
    Optional[str],
    typer.Option(
        help=f"Noise schedule that the model was trained with: {', '.join(SCHEDULES)}. Default: linear.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
Eta = Annotated[
    Optional[float],
    typer.Option(
        help="Share of fresh noise in ddim's steps, 0 to 1. Default: 0.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
TileFrames = Annotated[
    Optional[int],
    typer.Option(
        help="Mel frames that a denoiser call may hold, which bound its memory; longer mels are denoised in tiles. "
        "Default: 512.",
        rich_help_panel=_DEPLOYMENT,
        show_default=False,
    ),
]
OverwriteConfig = Annotated[
    bool,
    typer.Option(
        "--overwrite-config",
        help="Write an existing config.pbtxt anew; edits made there by hand are lost.",
        rich_help_panel=_DEPLOYMENT,
    ),
]
ModelVersion = Annotated[
    Optional[int],
    typer.Option(
        "--version",
        help="Version number in the repository. Default: the next free one.",
        rich_help_panel=_PLACING,
        show_default=False,
    ),
]
Keep = Annotated[
    Optional[int],
    typer.Option(
        help="Keep this many versions of a model, remove older ones. Default: all.",
        rich_help_panel=_PLACING,
        show_default=False,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be written, write nothing.", rich_help_panel=_PLACING)
]
VerifiedRepository = Annotated[
    Optional[Path],
    typer.Option(
        "--repository",
        help="The repository to verify; with --url, the one that holds the reference. Default: model_repository.",
        show_default=False,
    ),
]
Url = Annotated[
    Optional[str], typer.Option(help="A live server to verify: grpc://HOST:PORT, http://HOST:PORT or HOST:PORT (gRPC).")
]
Model = Annotated[
    str, typer.Option("--model", "-m", help="gan, diffusion, a model's name, or all that the reference knows.")
]
ReferenceCheckpoint = Annotated[
    Optional[Path],
    typer.Option("--ckpt", help="Compare with this checkpoint, run by PyTorch, not with what the export recorded."),
]
VerifiedVersion = Annotated[
    Optional[int],
    typer.Option(
        "--version", help="Version to verify. Default: the reference's newest, or with --ckpt the deployed one."
    ),
]
ExpectedPrecision = Annotated[
    Optional[str],
    typer.Option("--precision", help="Expected number format. Default: what the export recorded, or with --ckpt fp32."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")]
