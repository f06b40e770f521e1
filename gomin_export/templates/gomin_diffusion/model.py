"""GOMIN diffusion on Triton: the sampling chain, run next to the denoiser.

The requests of one call run side by side and share denoiser calls if their tiles have the same length, with any
samplers, steps and seeds. The calls of the two instances meet in the denoiser's batcher.

The same file serves gomin_diffusion, with one answer for each request, and gomin_diffusion_stream, whose decoupled
transaction policy allows an answer after each step.

Imports numpy, the standard library, Triton's own module, and `sampling/`, which gomin-export copies beside this file.
Runs on Python 3.10.
"""

import functools
import json

import numpy as np
import triton_python_backend_utils as pb_utils
from sampling.jobs import DiffusionModel, sample_jobs, side_by_side

DENOISER = "gomin_denoiser"
SENT = object()  # in place of the response to a request that has been answered


class TritonPythonModel:
    """mel (B, M, T), seed (B, 1), first_sample (B, 1) -> audio (B, 1, hop_length·T); a stream: step, steps (B, 1)."""

    def initialize(self, args):
        """Read the settings that the export wrote into config.pbtxt.

        Raises:
            pb_utils.TritonModelException: the settings are invalid.
        """
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        self.streams = pb_utils.using_decoupled_model_transaction_policy(config)
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        try:
            self.model = DiffusionModel.from_config(parameters, int(config["max_batch_size"]))
        except ValueError as error:
            raise pb_utils.TritonModelException(f"{self.name}: {error}") from error
        # one export writes both models under one version number
        self.denoiser_version = int(args["model_version"])

    def execute(self, requests):
        """Answer every request. A bad request gets an error and does not affect the others."""
        if self.streams:
            self._stream(requests)
            return None
        responses = [None] * len(requests)
        jobs = {}
        for index, request in enumerate(requests):
            self._prepare(index, request, request.is_cancelled, None, jobs, responses)
        self._answer(jobs, responses)
        return responses

    def _stream(self, requests):
        """Send the predicted signal after each step. A chain that ends is answered before longer ones go on."""
        senders = [request.get_response_sender() for request in requests]
        responses = [None] * len(requests)
        jobs = {}
        for index, (request, sender) in enumerate(zip(requests, senders, strict=True)):
            on_step = functools.partial(self._send_step, sender, index, jobs, responses)
            self._prepare(index, request, sender.is_cancelled, on_step, jobs, responses)
            if responses[index] is not None:
                self._send_last(sender, index, responses)
        self._answer(jobs, responses)
        for index, sender in enumerate(senders):
            if responses[index] is not SENT:
                self._send_last(sender, index, responses)

    def _send_last(self, sender, index, responses):
        response, responses[index] = responses[index], SENT
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _send_step(self, sender, index, jobs, responses, step, signal):
        response = self._response(signal, jobs[index], step)
        if step < len(jobs[index].sampler.timesteps):
            sender.send(response)
        else:
            responses[index] = response
            self._send_last(sender, index, responses)

    def _response(self, signal, job, step):
        tensors = [pb_utils.Tensor("audio", signal)]
        if self.streams:
            steps = len(job.sampler.timesteps)
            for name, value in (("step", step), ("steps", steps)):
                tensors.append(pb_utils.Tensor(name, np.full((len(signal), 1), value, np.int32)))
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _prepare(self, index, request, is_cancelled, on_step, jobs, responses):
        """Read a request: a job, or an error as its response."""
        try:
            jobs[index] = self._job(request, is_cancelled, on_step)
        except ValueError as error:
            responses[index] = self._error(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # an exception that leaves execute() would fail all requests of the call
            responses[index] = self._error(repr(error))

    def _answer(self, jobs, responses):
        """Run all jobs."""
        frames = {index: len(job.mel) * job.mel.shape[-1] for index, job in jobs.items()}
        for group in side_by_side(frames, self.model.max_frames):
            self._run({index: jobs[index] for index in group}, responses)

    def _job(self, request, is_cancelled, on_step):
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in ("mel", "seed", "first_sample")}
        arrays = {name: None if tensor is None else tensor.as_numpy() for name, tensor in tensors.items()}
        parameters = json.loads(request.parameters() or "{}")
        return self.model.job(arrays["mel"], arrays["seed"], arrays["first_sample"], parameters, is_cancelled, on_step)

    def _run(self, jobs, responses):
        """Run jobs together; if that fails, one by one, so that a bad one fails alone."""
        try:
            signals = sample_jobs(self._denoise, list(jobs.values()), self.model.tiling)
        except Exception as error:
            unanswered = {index: job for index, job in jobs.items() if responses[index] is not SENT}
            if len(jobs) > 1:
                for index, job in unanswered.items():
                    self._run({index: job}, responses)
            elif unanswered:
                responses[next(iter(jobs))] = self._error(str(error) or repr(error))
            return
        for index, signal in zip(jobs, signals, strict=True):
            if responses[index] is SENT:
                continue
            if signal is None:
                responses[index] = self._error("cancelled", pb_utils.TritonError.CANCELLED)
            else:
                job = jobs[index]
                responses[index] = self._response(signal, job, len(job.sampler.timesteps))

    def _denoise(self, signal, timestep, mel):
        """(B, 1, N), (B,), (B, M, T) -> (B, 1, N): one call of the denoiser model."""
        response = pb_utils.InferenceRequest(
            model_name=DENOISER,
            model_version=self.denoiser_version,
            requested_output_names=["noise"],
            inputs=[
                pb_utils.Tensor("signal", signal),
                pb_utils.Tensor("timestep", timestep[:, np.newaxis]),
                pb_utils.Tensor("mel", mel),
            ],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
        ).exec()
        if response.has_error():
            raise RuntimeError(f"{DENOISER}: {response.error().message()}")
        return pb_utils.get_output_tensor_by_name(response, "noise").as_numpy()

    def _error(self, text, *code):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{self.name}: {text}", *code))
