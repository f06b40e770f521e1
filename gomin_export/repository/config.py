"""The text of a model's config.pbtxt: a template with deployment settings, and the parameters that clients read."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from string import Template
from typing import Any

from gomin_client.contract import model as contract
from gomin_client.contract.choices import SAMPLER_PARAMETERS
from gomin_client.contract.model import PROVENANCE_PARAMETER, ModelContract, Provenance
from gomin_client.contract.repository import parse
from gomin_client.contract.signatures import SIGNATURES, Tensor
from gomin_client.errors import UsageError
from gomin_client.native.library import LIBRARY_FILE
from gomin_client.sampling.settings import SamplerSettings
from gomin_export.networks.served import ServedModel
from gomin_export.repository import tensorrt
from gomin_export.repository.bounds import max_frames
from gomin_export.repository.tensorrt import TENSORRT

# The native backend's numbers. "default" is not ONNX Runtime's default but one fixed algorithm, or in later versions
# cuDNN's last resort; docs/export.md cites measurements.
CUDNN_SEARCHES = {"exhaustive": "0", "heuristic": "1", "default": "2"}
# accelerator → the instances that it works on; Triton ignores it silently on others
ACCELERATORS = {"cuda": "gpu", TENSORRT: "gpu", "openvino": "cpu"}
INSTANCE_KINDS = ("auto", "cpu", "gpu")

_PARAMETER = 'parameters {{ key: "{}" value: {{ string_value: "{}" }} }}\n'
_PROVENANCE_LINE = re.compile(
    rf'^parameters {{ key: "{PROVENANCE_PARAMETER.pattern}" value: {{ string_value: "[^"\n]*" }} }}[ \t]*\n',
    re.MULTILINE,
)
# A name without a directory: the system searches for it where the operator of the server has put the library, or has
# told it to (LD_LIBRARY_PATH). A path would be one of the server's machine, which nobody knows here.
_OPERATORS_LINES = f"""\
# NVIDIA's native backend searches this library on the server's library path: docs/export.md. gomin-server has its own
model_operations {{ op_library_filename: "{LIBRARY_FILE}" }}
"""

# setting → its value in a parsed config.pbtxt
_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "max_batch_size": lambda config: config.max_batch_size,
    "batch_delay_us": lambda config: config.dynamic_batching.max_queue_delay_microseconds,
    "max_frames": lambda config: config.parameters[contract.MAX_FRAMES].string_value,
    "queue_size": lambda config: config.dynamic_batching.default_queue_policy.max_queue_size,
    "queue_timeout_s": lambda config: config.dynamic_batching.default_queue_policy.default_timeout_microseconds / 1e6,
    "instances": lambda config: [group.count for group in config.instance_group],
    "instance_kind": lambda config: [group.Kind.Name(group.kind) for group in config.instance_group],
    "threads": lambda config: config.parameters["intra_op_thread_count"].string_value,
    "warm_up": lambda config: [
        (warm_up.batch_size, *(list(tensor.dims) for _, tensor in sorted(warm_up.inputs.items())))
        for warm_up in config.model_warmup
    ],
    "cudnn_search": lambda config: config.parameters["cudnn_conv_algo_search"].string_value,
    "tf32": lambda config: [
        entry.parameters.get("use_tf32")
        for entry in config.optimization.execution_accelerators.gpu_execution_accelerator
        if entry.name == "cuda"
    ],
    "accelerator": lambda config: [
        entry.name
        for entries in (
            config.optimization.execution_accelerators.gpu_execution_accelerator,
            config.optimization.execution_accelerators.cpu_execution_accelerator,
        )
        for entry in entries
    ],
    "tensorrt_opt": lambda config: _tensorrt_parameters(config).get("trt_profile_opt_shapes"),
    "tensorrt_cache": lambda config: _tensorrt_parameters(config).get("trt_engine_cache_path"),
}
# the same for the sampler's model, which has fewer settings
_CHAIN_SETTINGS: dict[str, Callable[[Any], Any]] = {
    **{name: _SETTINGS[name] for name in ("max_batch_size", "max_frames", "queue_size", "queue_timeout_s")},
    "sampling": lambda config: " ".join(
        f"{name} {config.parameters[contract.PARAMETER_PREFIX + name].string_value}"
        for name in SAMPLER_PARAMETERS
        if contract.PARAMETER_PREFIX + name in config.parameters
    ),
    "tile_frames": lambda config: config.parameters[contract.PARAMETER_PREFIX + "tile_frames"].string_value,
}
# kind → the settings of its models; a front end has none
_SETTINGS_OF = {
    contract.GAN: _SETTINGS,
    contract.DENOISER: _SETTINGS,
    **dict.fromkeys(contract.CHAIN_KINDS, _CHAIN_SETTINGS),
    **{kind: {name: _SETTINGS[name] for name in ("max_batch_size", "max_frames")} for kind in contract.ENSEMBLE_KINDS},
}


@dataclass(frozen=True)
class Deployment:
    """Settings of config.pbtxt; None takes the default, given below.

    Attributes:
        max_batch_size: largest batch of one call of a model; 16.
        batch_delay_us: time that a request may wait for others of its batch, in microseconds; 0, for a denoiser 500.
        instances: number of copies of a model that run at the same time; 1.
        instance_kind: hardware of the instances: auto (GPUs if there are any), cpu, or gpu (an error without one);
            auto, or the kind that the accelerator needs.
        threads: number of CPU threads of each instance, 0 for one for each core; 0.
        warm_up: (batch, frames) of requests that each instance answers before it counts as ready; one of 1 × 64.
        cudnn_search: how cuDNN chooses an algorithm of a convolution for each new length; heuristic.
        tf32: let GPUs round float32 products to TensorFloat-32; no.
        accelerator: cuda or tensorrt (on GPUs), openvino (on the CPU); CUDA on GPUs, ONNX Runtime's own operators on
            the CPU.
        sampling: the chain of diffusion requests that choose none; the released one.
        tile_frames: largest number of mel frames in one denoiser call; 512, or more for a wide halo.
        max_frames: largest number of mel frames in one request, of all its items together; what
            `networks.served.MEMORY_BUDGET` holds, with TensorRT at most 512. Denoisers and mel front ends keep their
            own.
        queue_size: largest number of waiting requests; no bound, for a chain 64.
        queue_timeout_s: time after which a request that still waits is refused, in seconds; never, for a chain 14400.
        tensorrt_opt: (batch, frames) of the shape that TensorRT chooses its kernels for; 4 × 512, or less if the
            largest shape is smaller.
        tensorrt_cache: directory for TensorRT's engines, on the server; `tensorrt.CACHE`.

    Raises:
        UsageError: a value out of range.
    """

    max_batch_size: int | None = None
    batch_delay_us: int | None = None
    instances: int | None = None
    instance_kind: str | None = None
    threads: int | None = None
    warm_up: Sequence[tuple[int, int]] | None = None
    cudnn_search: str | None = None
    tf32: bool | None = None
    accelerator: str | None = None
    sampling: SamplerSettings | None = None
    tile_frames: int | None = None
    max_frames: int | None = None
    queue_size: int | None = None
    queue_timeout_s: int | None = None
    tensorrt_opt: tuple[int, int] | None = None
    tensorrt_cache: str | None = None

    def __post_init__(self) -> None:
        for name in (
            "max_batch_size",
            "instances",
            "threads",
            "tile_frames",
            "max_frames",
            "queue_size",
            "queue_timeout_s",
        ):
            value = getattr(self, name)
            least = 0 if name == "threads" else 1
            if value is not None and value < least:
                raise UsageError(f"{_option(name)} {value}: expected at least {least}")
            if value is not None and value > _LARGEST:
                raise UsageError(f"{_option(name)} {value}: expected at most {_LARGEST}")
        if self.batch_delay_us is not None and self.batch_delay_us < 0:
            raise UsageError(f"{_option('batch_delay_us')} {self.batch_delay_us}: expected 0 or more microseconds")
        for name, known in (
            ("instance_kind", INSTANCE_KINDS),
            ("cudnn_search", CUDNN_SEARCHES),
            ("accelerator", ACCELERATORS),
        ):
            if getattr(self, name) not in (None, *known):
                raise UsageError(f"{_option(name)} {getattr(self, name)}: expected {', '.join(known)}")
        if self.batch_delay_us is not None and self.batch_delay_us > _LARGEST:
            raise UsageError(f"--batch-delay-us {self.batch_delay_us}: expected at most {_LARGEST} microseconds")
        for batch, frames in self.warm_up or ():
            if not (1 <= batch <= self.batch and 1 <= frames <= _LARGEST):
                raise UsageError(
                    f"--warm-up {batch}x{frames}: expected 1 to {_LARGEST} frames, and 1 to "
                    f"{self.batch} items, the maximum batch size"
                )
        for name in ("tf32", "cudnn_search"):
            if getattr(self, name) is not None and (self.accelerator == "openvino" or self.instance_kind == "cpu"):
                raise UsageError(f"{_option(name)} is for GPUs: it has no effect on CPU instances")
        if self.accelerator and self.instance_kind not in (None, ACCELERATORS[self.accelerator]):
            raise UsageError(
                f"--accelerator {self.accelerator} runs on {ACCELERATORS[self.accelerator]} instances only: "
                f"leave out --instance-kind {self.instance_kind}"
            )
        self._check_tensorrt()

    def _check_tensorrt(self) -> None:
        for name in ("tensorrt_opt", "tensorrt_cache"):
            if getattr(self, name) is not None and self.accelerator != TENSORRT:
                raise UsageError(f"{_option(name)} has no effect without --accelerator {TENSORRT}")
        if self.tensorrt_opt is not None and min(self.tensorrt_opt) < 1:
            raise UsageError(f"--tensorrt-opt {'x'.join(map(str, self.tensorrt_opt))}: expected 1 or more")
        if self.tensorrt_cache is not None and not _ABSOLUTE_PATH.fullmatch(self.tensorrt_cache):
            raise UsageError(
                f"--tensorrt-cache {self.tensorrt_cache!r}: expected an absolute path on the server, of printable "
                "ASCII characters except quotation marks and backslashes"
            )

    @property
    def batch(self) -> int:
        """The largest batch of one call."""
        return self.max_batch_size or _MAX_BATCH_SIZE

    @property
    def for_gpus(self) -> str:
        """The option that asks for GPUs, as on the command line; empty if none does."""
        if self.instance_kind == "gpu":
            return "--instance-kind gpu"
        return f"--accelerator {self.accelerator}" if ACCELERATORS.get(self.accelerator or "") == "gpu" else ""


_MAX_BATCH_SIZE = 16
_LARGEST = 10_000_000  # of any count: far above sensible values, far below the limits of a config's fields
# of printable ASCII characters that a quoted string of config.pbtxt may contain as they are
_ABSOLUTE_PATH = re.compile(r"/[ !#-\[\]-~]*")
_WARM_UP = ((1, 64),)
_WIDTH = 120  # of comments in config.pbtxt


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def config_text(model: ServedModel, described: ModelContract, deployment: Deployment) -> str:
    """A model's config.pbtxt without the provenance of its versions.

    Raises:
        UsageError: the deployment settings do not suit the model.
    """
    if model.is_shared:
        deployment = Deployment()  # the settings of one network's export are not for the others
    bound = max_frames(model, described, deployment)
    warm_up = deployment.warm_up
    if warm_up is None:
        warm_up = [(batch, frames if bound is None else min(frames, bound)) for batch, frames in _WARM_UP]
    instance_kind = deployment.instance_kind or ACCELERATORS.get(deployment.accelerator or "", "auto")
    # the templates contain the fixed settings, with reasons; the chosen ones are substituted
    text = Template(model.template_text("config.pbtxt")).substitute(
        name=model.name,
        inputs=_tensors(SIGNATURES[model.kind].inputs, described, model.is_batched),
        outputs=_tensors(SIGNATURES[model.kind].outputs, described, model.is_batched),
        max_batch_size=deployment.batch,
        batch_delay_us=model.batch_delay_us if deployment.batch_delay_us is None else deployment.batch_delay_us,
        max_frames="" if bound is None else parameter_lines({contract.MAX_FRAMES: str(bound)}),
        queue_policy=_queue_policy(
            deployment.queue_size or model.queue_size, deployment.queue_timeout_s or model.queue_timeout_s
        ),
        instances=deployment.instances or 1,
        instance_kind=f"KIND_{instance_kind.upper()}",
        accelerator=_accelerator(described, deployment, bound) if model.has_weights else "",
        cudnn_search=CUDNN_SEARCHES[deployment.cudnn_search or "heuristic"],
        threads=deployment.threads or 0,
        warm_up="".join(_warm_up(described, batch, frames) for batch, frames in warm_up if model.has_weights),
        **model.config_values(described, deployment),
    )
    return text + parameter_lines(described.to_parameters())


def with_provenance(text: str, provenance: Mapping[int, Provenance]) -> str:
    """A config.pbtxt with the provenance of these versions only, and the operator library if one of them needs it.

    Edited `model_operations` stay as they are.

    Raises:
        ContractError: a version needs the library, and the text is not a Triton model configuration.
    """
    lines = [parameter_lines(made.to_parameters(version)) for version, made in sorted(provenance.items())]
    text = without_provenance(text)
    if any(made.operators for made in provenance.values()) and not parse(text).HasField("model_operations"):
        lines.append(_OPERATORS_LINES)
    return text + "".join(lines)


def names_library(text: str) -> bool:
    """Whether a config.pbtxt names the operator library, in any directory, or leaves it to `with_provenance`.

    Raises:
        ContractError: the text is not a Triton model configuration.
    """
    config = parse(text)
    names = config.model_operations.op_library_filename
    is_named = any(PurePosixPath(name).name == LIBRARY_FILE for name in names)
    return is_named or not config.HasField("model_operations")


def without_provenance(text: str) -> str:
    """A config.pbtxt without the lines that `with_provenance` adds."""
    return _PROVENANCE_LINE.sub("", text.rstrip("\n") + "\n").replace(_OPERATORS_LINES, "")


def conflicts(existing: str, new: str, deployment: Deployment) -> list[str]:
    """Settings asked for that differ from an existing config.pbtxt, as "setting is X, asked for Y".

    Raises:
        ContractError: the existing text is not a Triton model configuration.
    """
    old_config, new_config = parse(existing), parse(new)
    found = []
    kind = new_config.parameters[contract.PARAMETER_PREFIX + "kind"].string_value
    for name, value_of in _SETTINGS_OF.get(kind, {}).items():
        if getattr(deployment, name) is not None and value_of(old_config) != value_of(new_config):
            found.append(f"{name} is {value_of(old_config)}, asked for {value_of(new_config)}")
    return found


def tensorrt_precision(text: str) -> str | None:
    """precision_mode of the TensorRT accelerator; None without TensorRT."""
    parameters = _tensorrt_parameters(parse(text))
    return parameters.get("precision_mode", "FP32") if parameters else None


def _tensorrt_parameters(config: Any) -> dict[str, str]:
    """The parameters of the TensorRT accelerator in a parsed config.pbtxt; empty without TensorRT."""
    entries = config.optimization.execution_accelerators.gpu_execution_accelerator
    return next(({"name": TENSORRT, **entry.parameters} for entry in entries if entry.name == TENSORRT), {})


def parameter_lines(parameters: Mapping[str, str]) -> str:
    """Parameters in the text format of config.pbtxt, one line each."""
    return "".join(_PARAMETER.format(name, value) for name, value in parameters.items())


def _accelerator(described: ModelContract, deployment: Deployment, bound: int | None) -> str:
    accelerator = deployment.accelerator or "cuda"
    if accelerator == "openvino":
        return 'cpu_execution_accelerator: [ { name: "openvino" } ]'
    cuda = _accelerator_entry("cuda", {"use_tf32": "1" if deployment.tf32 else "0"})
    # the templates of other kinds have no accelerator
    if accelerator != TENSORRT or described.kind not in (contract.GAN, contract.DENOISER):
        return f"gpu_execution_accelerator: [ {cuda} ]"
    assert bound is not None  # TensorRT's models always have one
    # CUDA runs the operators that TensorRT does not support
    return f"gpu_execution_accelerator: [\n  {_tensorrt_entry(described, deployment, bound)},\n  {cuda}\n]"


def _tensorrt_entry(described: ModelContract, deployment: Deployment, bound: int) -> str:
    chosen = tensorrt.parameters(described, deployment, bound)
    lines = "".join(f'    parameters {{ key: "{key}" value: "{value}" }}\n' for key, value in chosen.items())
    return f'{{ name: "{TENSORRT}"\n{_TENSORRT_COMMENT}{lines}  }}'


_TENSORRT_COMMENT = """\
    # FP32 makes no operator float16 that is float32 in the model. Longer requests and larger batches than the max
    # shapes are refused by TensorRT: change these, max_batch_size and gomin.max_frames together. Engines are kept in
    # the cache directory, which only the server may write. TF32 is off in TensorRT only if the environment of the
    # server has NVIDIA_TF32_OVERRIDE=0
"""


def _accelerator_entry(name: str, parameters: Mapping[str, str]) -> str:
    entries = " ".join(f'parameters {{ key: "{key}" value: "{value}" }}' for key, value in parameters.items())
    return f'{{ name: "{name}" {entries} }}'


def _queue_policy(size: int | None, timeout_s: int | None) -> str:
    """The bounds on a model's queue, in the text format of config.pbtxt; empty without bounds.

    With any bound, Triton's batcher passes a request on only while an instance waits for one. A request that arrives
    between the answer to another and that moment wakes nobody, and waits until the batcher looks again after half a
    second, although the model is idle (observed with 24.10; the source of later releases is the same).
    """
    lines = []
    if size is not None:
        lines.append("    # a request is refused at once if the queue is full\n" + f"    max_queue_size: {size}\n")
    if timeout_s is not None:
        lines.append(
            "    # a request that has waited for this time is refused\n"
            f"    timeout_action: REJECT default_timeout_microseconds: {timeout_s * 1_000_000}\n"
        )
    return "  default_queue_policy {\n" + "".join(lines) + "  }\n" if lines else ""


def _tensors(tensors: Sequence[Tensor], described: ModelContract, is_batched: bool) -> str:
    """The elements of `input` or `output`, each below a comment that describes it.

    Dims have no batch axis, unless the model has a maximum batch size of 0.
    """
    entries = []
    for tensor in tensors:
        unit, meaning = tensor.words(described)
        text = f"{tensor.name} {tensor.layout(described)}: {meaning}. Unit: {unit}"
        dims = ", ".join(str(size) for size in tensor.shape(described)[is_batched:])
        optional = " optional: true" if tensor.is_optional else ""
        entries.append(
            textwrap.fill(text, _WIDTH, initial_indent="  # ", subsequent_indent="  # ", break_on_hyphens=False)
            + f'\n  {{ name: "{tensor.name}" data_type: TYPE_{tensor.datatype} dims: [ {dims} ]{optional} }}'
        )
    return ",\n".join(entries)


def _warm_up(described: ModelContract, batch: int, frames: int) -> str:
    """A warm-up request of zeros. Dims have no batch axis; Triton skips a request with a batch_size of 0 silently."""
    inputs = "".join(
        f'  inputs {{ key: "{tensor.name}" value: {{ data_type: TYPE_{tensor.datatype} '
        f"dims: {tensor.sizes(described, frames)} zero_data: true }} }}\n"
        for tensor in SIGNATURES[described.kind].inputs
    )
    return f'model_warmup {{\n  name: "{batch} x {frames} frames" batch_size: {batch}\n{inputs}}}\n'
