"""A Triton backend in Python that replaces NVIDIA's native onnxruntime backend where that is not installed.

It reads the same config.pbtxt, and parameters have the same meaning. A setting that it cannot apply is refused or
reported, never ignored. Requests that Triton's dynamic batcher combines run as one batch.

Operators of our own (`--target native`) are loaded from the library beside this file alone, where gomin-server has put
the installed one, and never from a model repository.

It may import numpy, onnxruntime, the standard library and Triton's own module, and must run on Python 3.10.
"""

import json
import os

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

GRAPH_LEVELS = {
    "-1": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "0": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "1": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "2": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
CONV_SEARCH = {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"}
ARENA_STRATEGIES = {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"}
BOOLEANS = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
CLIENT_PREFIX = "gomin."  # parameters that only clients read
MAX_FRAMES = "gomin.max_frames"  # read here too: the bound of a request
HOP_LENGTH = "gomin.hop_length"
ARENA_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
OPERATORS = "gomin.operators."  # and the version of the model
OPERATOR_LIBRARY = "libgomin_ops.so"
DESCRIPTION = "libgomin_ops.json"
OTHER_TARGETS = (
    "export the checkpoint with --target cpu (GAN) or any (diffusion), and --keep 1: Triton loads the two newest "
    "versions of a model, and none if one fails"
)
# Microseconds for which a thread of ONNX Runtime waits for work before it sleeps. By default it occupies its core for
# about 30 ms, also after a request, when clients and other processes of the server need the core. Versions of ONNX
# Runtime that do not have the setting ignore it.
SPIN_DURATION = "session.intra_op.spin_duration_us"
SPIN_US = 100

NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}


class TritonPythonModel:
    """One instance of one version of an ONNX model."""

    def initialize(self, args):
        """Load the model with the settings of its config.pbtxt.

        Raises:
            pb_utils.TritonModelException: config.pbtxt has a value that the native backend refuses too, names an
                execution accelerator or an operator library that this backend does not have, asks for a GPU instance
                without CUDA, or disagrees with the ONNX file about a tensor.
        """
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        self.batching = int(config.get("max_batch_size", 0)) > 0
        # tensor -> length of a frame along its last axis: what a request needs memory for
        self.frame_lengths = {"mel": 1, "signal": 1}
        self.max_frames = None
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        options, self.run_options, cuda = self._options(config, parameters)
        if MAX_FRAMES in parameters:
            self.max_frames = self._count(MAX_FRAMES, parameters[MAX_FRAMES])
            self.frame_lengths["signal"] = max(1, self._count(HOP_LENGTH, parameters.get(HOP_LENGTH, "1")))
        self._register_operators(config, parameters.get(OPERATORS + args["model_version"]), options)
        providers = self._providers(config, args, cuda)
        path = os.path.join(
            args["model_repository"], args["model_version"], config.get("default_model_filename") or "model.onnx"
        )
        self.session = ort.InferenceSession(path, options, providers=providers)
        wanted = providers[0][0] if isinstance(providers[0], tuple) else providers[0]
        if wanted not in self.session.get_providers():
            raise self._refusal(
                f"config.pbtxt requires {wanted}, but ONNX Runtime set up only {self.session.get_providers()}"
            )
        self.inputs = {tensor.name: NUMPY_TYPES.get(tensor.type) for tensor in self.session.get_inputs()}
        self.outputs = [tensor["name"] for tensor in config["output"]]
        missing = set(self.outputs) - {tensor.name for tensor in self.session.get_outputs()}
        missing |= {tensor["name"] for tensor in config["input"]} ^ set(self.inputs)
        if missing:
            raise self._refusal(f"config.pbtxt and {os.path.basename(path)} disagree about tensor {sorted(missing)[0]}")
        self._log(
            pb_utils.Logger.log_info,
            f"Python-based onnxruntime backend, ONNX Runtime {ort.__version__}, {self.session.get_providers()[0]}; "
            f"session: intra_op_num_threads {options.intra_op_num_threads}, "
            f"inter_op_num_threads {options.inter_op_num_threads}, {options.execution_mode.name}, "
            f"enable_cpu_mem_arena {options.enable_cpu_mem_arena}, enable_mem_pattern {options.enable_mem_pattern}, "
            f"{options.graph_optimization_level.name}, "
            f"{SPIN_DURATION} {options.get_session_config_entry(SPIN_DURATION)}",
        )

    def execute(self, requests):
        """Answer each request. Requests of equal shapes run as one batch."""
        responses = [None] * len(requests)
        groups = {}
        for index, request in enumerate(requests):
            tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in self.inputs}
            absent = [name for name, tensor in tensors.items() if tensor is None]
            if absent:
                responses[index] = self._error(f"input {absent[0]} is missing")
                continue
            if request.is_cancelled():
                responses[index] = self._error("cancelled", pb_utils.TritonError.CANCELLED)
                continue
            arrays = {name: tensor.as_numpy() for name, tensor in tensors.items()}
            defect = self._defect(arrays)
            if defect:
                responses[index] = self._error(defect, pb_utils.TritonError.INVALID_ARG)
                continue
            key = index if not self.batching else tuple(array.shape[1:] for array in arrays.values())
            groups.setdefault(key, []).append((index, arrays))
        for group in groups.values():
            for part in self._bounded(group):
                self._run_group(part, responses)
        return responses

    def _defect(self, arrays):
        """What is wrong with the length of a request, or None."""
        if "mel" in arrays and arrays["mel"].shape[-1:] == (0,):
            return f"input mel has no frames: shape {list(arrays['mel'].shape)}"
        frames = self._frames(arrays)
        if self.max_frames is not None and frames > self.max_frames:
            return (
                f"at most {self.max_frames} frames in one request, this one has {frames}, all items together: "
                f"send windows of it, or raise {MAX_FRAMES} in config.pbtxt"
            )
        return None

    def _frames(self, arrays):
        """Number of mel frames of a request, all its items together; its longest tensor counts."""
        lengths = [
            -(-array.shape[0] * array.shape[-1] // self.frame_lengths[name])
            for name, array in arrays.items()
            if name in self.frame_lengths and array.ndim
        ]
        if "audio" in arrays:  # of a mel front end: the first frame is centred on the first sample
            audio = arrays["audio"]
            lengths.append(audio.shape[0] * (1 + audio.shape[-1] // self.frame_lengths["signal"]))
        return max(lengths, default=0)

    def _bounded(self, group):
        """The requests of a batch in parts that together have no more frames than one request may have."""
        parts, total = [[]], 0
        for member in group:
            frames = self._frames(member[1])
            if self.max_frames is not None and parts[-1] and total + frames > self.max_frames:
                parts.append([])
                total = 0
            parts[-1].append(member)
            total += frames
        return parts

    def _run_group(self, group, responses):
        """Run requests of equal shapes as one batch; if it fails, one by one, so that only the bad one fails."""
        batch = {name: [arrays[name] for _, arrays in group] for name in self.inputs}
        feed = {name: np.concatenate(parts) if len(parts) > 1 else parts[0] for name, parts in batch.items()}
        try:
            results = self.session.run(self.outputs, feed, self.run_options)
        except Exception as error:  # ONNX Runtime's exceptions have no common public base
            if len(group) > 1:
                for member in group:
                    self._run_group([member], responses)
            else:
                code = [pb_utils.TritonError.INVALID_ARG] if "INVALID_ARGUMENT" in str(error) else []
                responses[group[0][0]] = self._error(str(error), *code)
            return
        first = 0
        for index, arrays in group:
            count = len(next(iter(arrays.values()))) if self.batching else None
            mine = [result if count is None else result[first : first + count] for result in results]
            responses[index] = self._answer(mine)
            first += count or 0

    def _answer(self, results):
        """The response with these outputs. NaN or infinite is an error here; the native backend returns such values."""
        for name, result in zip(self.outputs, results, strict=True):
            if result.dtype.kind == "f" and not np.isfinite(result).all():
                return self._error(f"output {name} is NaN or infinite: an input is NaN, infinite or too large")
        tensors = [pb_utils.Tensor(name, result) for name, result in zip(self.outputs, results, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _options(self, config, parameters):
        """Session options, run options and CUDA options from config.pbtxt. Unknown parameters are logged."""
        options = ort.SessionOptions()
        options.add_session_config_entry(SPIN_DURATION, str(SPIN_US))
        run_options = ort.RunOptions()
        cuda = {}
        level = str(config.get("optimization", {}).get("graph", {}).get("level", 0))
        options.graph_optimization_level = self._choice("optimization.graph.level", level, GRAPH_LEVELS)
        for name, value in parameters.items():
            if name == "intra_op_thread_count":
                options.intra_op_num_threads = self._count(name, value)
            elif name == "inter_op_thread_count":
                options.inter_op_num_threads = self._count(name, value)
            elif name == "execution_mode":
                modes = {"0": ort.ExecutionMode.ORT_SEQUENTIAL, "1": ort.ExecutionMode.ORT_PARALLEL}
                options.execution_mode = self._choice(name, value, modes)
            elif name == "enable_mem_arena":
                options.enable_cpu_mem_arena = self._choice(name, value.lower(), BOOLEANS)
            elif name == "enable_mem_pattern":
                options.enable_mem_pattern = self._choice(name, value.lower(), BOOLEANS)
            elif name == ARENA_SHRINKAGE:
                run_options.add_run_config_entry(ARENA_SHRINKAGE, value)
            elif name == "cudnn_conv_algo_search":
                cuda[name] = self._choice(name, value, CONV_SEARCH)
            elif name == "arena_extend_strategy":
                cuda[name] = self._choice(name, value, ARENA_STRATEGIES)
            elif name in ("gpu_mem_limit", "do_copy_in_default_stream"):
                cuda[name] = value
            elif not name.startswith(CLIENT_PREFIX):
                self._log(pb_utils.Logger.log_warn, f"unknown parameter {name!r} in config.pbtxt has no effect")
        return options, run_options, cuda

    def _register_operators(self, config, needed, options):
        """Make the operators that this version needs known to its session.

        Args:
            config: the model's configuration. Its op_library_filename is for the native backend, and not loaded.
            needed: operators of our library, such as "gomin 1"; None if the version needs none.
            options: the session's.
        """
        for name in config.get("model_operations", {}).get("op_library_filename", []):
            if os.path.basename(name) != OPERATOR_LIBRARY:
                raise self._refusal(
                    f"op_library_filename is {name!r} in config.pbtxt: only the native onnxruntime backend loads other "
                    f"operators than those of {OPERATOR_LIBRARY}"
                )
        if needed is None:
            return
        home = os.path.dirname(os.path.abspath(__file__))
        try:
            with open(os.path.join(home, DESCRIPTION), encoding="utf-8") as file:
                described = json.load(file)
        except FileNotFoundError:
            raise self._refusal(
                f"it needs the operators {needed}, and the installation of gomin-triton that runs this server has no "
                "library of them: install gomin-triton from its wheel for Linux on x86-64, or reinstall it where a C++ "
                f"compiler (g++ or clang++) is found; or {OTHER_TARGETS}"
            ) from None
        if "problem" in described:  # written by gomin-server, in place of a library that cannot be used
            raise self._refusal(f"it needs the operators {needed}: {described['problem']}")
        present = described["operators"]
        if present != needed:
            raise self._refusal(
                f"it needs the operators {needed}, and the library of the installation of gomin-triton that runs this "
                f"server has {present}: install the version that exported the model, or export the checkpoint again"
            )
        try:
            options.register_custom_ops_library(os.path.join(home, OPERATOR_LIBRARY))
        except Exception as error:  # ONNX Runtime's classes of errors have no common base
            raise self._refusal(
                "this system cannot load the operator library of the installation: reinstall gomin-triton here, where "
                f"a C++ compiler (g++ or clang++) is found, or {OTHER_TARGETS} ({' '.join(str(error).split())})"
            ) from error
        self._log(pb_utils.Logger.log_info, f"operators {present}, from the library of this installation")

    def _providers(self, config, args, cuda):
        """Execution providers for this instance. One that is configured but not available is an error."""
        accelerators = config.get("optimization", {}).get("execution_accelerators", {})
        for accelerator in accelerators.get("cpu_execution_accelerator", []):
            raise self._refusal(
                f"CPU execution accelerator {accelerator['name']!r} needs the native onnxruntime backend"
            )
        if args["model_instance_kind"] != "GPU":
            return ["CPUExecutionProvider"]
        for accelerator in accelerators.get("gpu_execution_accelerator", []):
            if accelerator["name"] != "cuda":
                raise self._refusal(
                    f"GPU execution accelerator {accelerator['name']!r} needs the native onnxruntime backend"
                )
            cuda = {**accelerator.get("parameters", {}), **cuda}
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise self._refusal("config.pbtxt requires a GPU instance, but this ONNX Runtime has no CUDA provider")
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # loads CUDA and cuDNN from pip's packages
        return [
            ("CUDAExecutionProvider", {**cuda, "device_id": args["model_instance_device_id"]}),
            "CPUExecutionProvider",
        ]

    def _choice(self, name, value, choices):
        if value not in choices:
            raise self._refusal(f"{name} is {value!r} in config.pbtxt; expected one of {', '.join(choices)}")
        return choices[value]

    def _count(self, name, value):
        if not value.strip().isdecimal():
            raise self._refusal(f"{name} is {value!r} in config.pbtxt; expected an integer, 0 for the default")
        return int(value)

    def _refusal(self, text):
        return pb_utils.TritonModelException(f"model {self.name}: {text}")

    def _error(self, text, *code):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"model {self.name}: {text}", *code))

    def _log(self, log, text):
        log(f"model {self.name}: {text}")
