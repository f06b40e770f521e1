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
from dataclasses import replace

import numpy as np
import triton_python_backend_utils as pb_utils
from sampling.jobs import DiffusionModel, sample_jobs, side_by_side

DENOISER = "gomin_denoiser"


class SingleAnswer:
    """The answer to a request that has one."""

    def __init__(self, request):
        self.is_cancelled = request.is_cancelled
        self.response = None

    @property
    def is_complete(self):
        """Whether nothing more can be sent."""
        return self.response is not None

    def end(self, response):
        """Answer the request."""
        self.response = response


class AnswerStream:
    """The answers to a request that has several. If one cannot be sent, the request ends, and the others go on."""

    def __init__(self, request, name):
        self.sender = request.get_response_sender()
        self.name = name
        self.is_complete = False
        self.steps = 0  # whose answers were sent

    def is_cancelled(self):
        """Whether nobody waits for more."""
        return self.is_complete or self.sender.is_cancelled()

    def send(self, response):
        """Send an answer."""
        try:
            self.sender.send(response)
        except Exception as error:  # for example no shared memory for the answer
            text = f"{self.name}: an answer could not be sent: {error}"
            self.end(pb_utils.InferenceResponse(error=pb_utils.TritonError(text)))

    def end(self, error_response=None):
        """Send that there are no more answers. Not together with the last one: a sender that failed then is closed."""
        self.is_complete = True
        try:
            self.sender.send(error_response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:  # one that leaves execute() would end all requests of the call
            pb_utils.Logger.log_error(f"{self.name}: the end of a stream could not be sent: {error}")


class TritonPythonModel:
    """mel (B, M, T), seed (B, 1), first_sample (B, 1) -> audio (B, 1, hop_length·T).

    A stream's answers also have step, steps and timestep, (B, 1) each.
    """

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
        answers = [AnswerStream(each, self.name) if self.streams else SingleAnswer(each) for each in requests]
        jobs = {}
        for index, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            try:
                jobs[index] = self._job(request, answer)
            except ValueError as error:
                answer.end(self._error(str(error), pb_utils.TritonError.INVALID_ARG))
            except Exception as error:  # one that leaves execute() would fail all requests of the call
                answer.end(self._error(repr(error)))
        frames = {index: len(job.mel) * job.mel.shape[-1] for index, job in jobs.items()}
        for group in side_by_side(frames, self.model.max_frames):
            self._run([(answers[index], jobs[index]) for index in group])
        return None if self.streams else [answer.response for answer in answers]

    def _job(self, request, answer):
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in ("mel", "seed", "first_sample")}
        arrays = {name: None if tensor is None else tensor.as_numpy() for name, tensor in tensors.items()}
        parameters = json.loads(request.parameters() or "{}")
        job = self.model.job(arrays["mel"], arrays["seed"], arrays["first_sample"], parameters, answer.is_cancelled)
        return replace(job, on_step=functools.partial(self._send_step, answer, job)) if self.streams else job

    def _send_step(self, answer, job, step, signal):
        """Send the predicted signal after a step. A chain that ends is answered before longer ones go on."""
        if step <= answer.steps:  # the chain was started again, see `_run`
            return
        answer.steps = step
        answer.send(self._response(signal, job, step))
        if step == len(job.sampler.timesteps) and not answer.is_complete:
            answer.end()

    def _response(self, signal, job, step):
        tensors = [pb_utils.Tensor("audio", signal)]
        if self.streams:
            timesteps, shape = job.sampler.timesteps, (len(signal), 1)
            tensors += [
                pb_utils.Tensor("step", np.full(shape, step, np.int32)),
                pb_utils.Tensor("steps", np.full(shape, len(timesteps), np.int32)),
                pb_utils.Tensor("timestep", np.full(shape, timesteps[step - 1], np.float32)),
            ]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _run(self, chains):
        """Run jobs together; if that fails, one by one, so that a bad one fails alone."""
        try:
            signals = sample_jobs(self._denoise, [job for _, job in chains], self.model.tiling)
        except Exception as error:
            waiting = [(answer, job) for answer, job in chains if not answer.is_complete]
            if len(chains) > 1:
                for chain in waiting:
                    self._run([chain])
            elif waiting:
                waiting[0][0].end(self._error(str(error) or repr(error)))
            return
        for (answer, job), signal in zip(chains, signals, strict=True):
            if answer.is_complete:
                continue
            if signal is None:
                answer.end(self._error("cancelled", pb_utils.TritonError.CANCELLED))
            else:
                answer.end(self._response(signal, job, len(job.sampler.timesteps)))

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
