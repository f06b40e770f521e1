"""A custom sampler: one step, and the predicted signal is the result."""

from __future__ import annotations

from gomin_client.sampling.base import Chain, NoiseSource, predicted_signal
from gomin_client.sampling.schedules import NoiseSchedule


class OneStep:
    def __init__(self, schedule: NoiseSchedule) -> None:
        self.timesteps = (len(schedule) - 1.0,)
        self.alphas_cumprod = schedule.at(self.timesteps)

    def chain(self, noise: NoiseSource) -> Chain:
        x = noise(0)
        epsilon = yield x, self.timesteps[0]
        return predicted_signal(x, epsilon, self.alphas_cumprod[0])


def make(schedule: NoiseSchedule, steps: int | None = None) -> OneStep:
    if steps not in (None, 1):
        raise ValueError(f"steps {steps}: sampler toy takes 1")
    return OneStep(schedule)
