"""GOMIN diffusion on Triton: the sampling chain, run next to the denoiser.

Imports numpy, the standard library, Triton's own module, and `sampling.py`, which gomin-export puts beside this file.
Runs on Python 3.10.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils
from sampling import DDPM, NoiseField, NoiseSchedule, sample

DENOISER = "gomin_denoiser"


class RequestError(Exception):
    """Something wrong with one request; answered for that request alone."""


class TritonPythonModel:
    """mel (B, M, T), seed (B, 1), first_sample (B, 1) -> audio (B, 1, hop_length·T)."""

    def initialize(self, args):
        """Read the settings that the export wrote into config.pbtxt."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.hop_length = int(parameters["gomin.hop_length"]["string_value"])
        steps = int(parameters["gomin.num_diffusion_steps"]["string_value"])
        self.sampler = DDPM(NoiseSchedule.linear(steps))
        # one export writes both models under one version number
        self.denoiser_version = int(args["model_version"])

    def execute(self, requests):
        """Answer every request; a bad one gets an error and does not touch the others."""
        return [self._respond(request) for request in requests]

    def _respond(self, request):
        try:
            audio = self._sample(request)
        except RequestError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        except Exception as error:  # an exception that leaves execute() would fail every request of the call
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"gomin_diffusion: {error!r}"))
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("audio", audio)])

    def _sample(self, request):
        parameters = json.loads(request.parameters() or "{}")
        if parameters:
            raise RequestError(f"gomin_diffusion: unknown request parameter {sorted(parameters)[0]!r}")
        mel = pb_utils.get_input_tensor_by_name(request, "mel").as_numpy()
        seeds = pb_utils.get_input_tensor_by_name(request, "seed").as_numpy()
        first_tensor = pb_utils.get_input_tensor_by_name(request, "first_sample")
        first = np.zeros(seeds.shape, np.int64) if first_tensor is None else first_tensor.as_numpy()
        if mel.shape[-1] == 0:
            raise RequestError("gomin_diffusion: mel has no frames")
        if not np.isfinite(mel).all():
            raise RequestError("gomin_diffusion: mel contains NaN or infinite values")
        try:
            noise = NoiseField(seeds[:, 0], self.hop_length * mel.shape[-1], first[:, 0])
        except ValueError as error:
            raise RequestError(f"gomin_diffusion: {error}") from error

        def denoise(signal, timestep, mel):
            # the caller may be gone: no more steps for it
            if request.is_cancelled():
                raise RequestError("gomin_diffusion: cancelled")
            return self._denoise(signal, timestep, mel)

        return sample(denoise, mel, noise, self.sampler)

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
            raise RequestError(f"{DENOISER}: {response.error().message()}")
        return pb_utils.get_output_tensor_by_name(response, "noise").as_numpy()
