"""A sampling chain step by step: what each step predicts for the end of the chain, as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract import model as contract
from gomin_client.errors import ContractError, InferenceError, UnknownModelError, UsageError
from gomin_client.inference.pinned import PinnedModel, fresh_seed
from gomin_client.mel.features import MelBatch, Wave
from gomin_client.transports.base import ModelInfo


@dataclass(frozen=True, eq=False)
class ChainStep:
    """A step of a chain.

    Attributes:
        number: its number, from 1.
        steps: number of steps of the chain.
        timestep: the denoiser's timestep: how much noise the signal contained before the step. Fractions occur.
        audio: (hop_length · frames,) float32, or (batch, hop_length · frames): the signal that this step predicts for
            the end of the chain, clipped to ±1; of the last step, the result.
    """

    number: int
    steps: int
    timestep: float
    audio: Wave


class SteppedModel(PinnedModel):
    """A model whose sampling chain can be followed step by step."""

    def check_steps(self, stop_after: int | None = None) -> None:
        """Refuse a model whose chain cannot be followed.

        Args:
            stop_after: the last step that is wanted; None for that of the chain.

        Raises:
            UsageError: the model has no chain, or no such step; the server cannot be reached in a way that has several
                answers.
            UnknownModelError, ContractError: the repository has no model that streams this chain.
        """
        self._twin()
        if stop_after is not None and not 1 <= stop_after <= self._steps:
            raise UsageError(f"step {stop_after}: the chain has steps 1 to {self._steps}")

    def _twin(self) -> ModelInfo:
        """The model that streams this model's chain."""
        if not self.takes_seed:
            raise UsageError(f"model {self.model} has no sampling chain: it makes its audio in one step")
        name = f"{self.model}_stream"
        if not self._transport.can_stream:
            raise UsageError(f"{self.url}: model {name} sends several answers, which needs grpc:// or local:")
        try:
            twin = self._transport.describe(name)
        except UnknownModelError as error:
            raise UnknownModelError(f"{error}. gomin-export diffusion --stream makes it") from error
        described = contract.ModelContract.from_parameters(name, twin.parameters)
        if described.kind != contract.DIFFUSION_STREAM or self.version not in twin.versions:
            raise ContractError(
                f"model {name} has no version {self.version} that belongs to model {self.model}: export both together, "
                "with gomin-export diffusion --stream"
            )
        return twin

    def step_followed(
        self,
        mels: Iterable[MelBatch],
        seed: int | None,
        stop_after: int | None = None,
        on_step: Callable[[ChainStep], None] = lambda _: None,
    ) -> Iterator[Wave]:
        """Audio of a mel whose values and shape have been checked, by one chain that is followed step by step.

        Args:
            mels: (batch, n_mels, any number of frames) each; at least one.
            seed: see `Vocoder.synthesize`.
            stop_after: the step whose prediction is kept; None for the last one.
            on_step: called after each step.

        Yields:
            (batch, samples) float32, once.

        Raises:
            GominError: see `synthesize_steps`.
        """
        mel = np.concatenate(list(mels), axis=-1)
        with closing(self.synthesize_steps(mel, seed, force=True)) as steps:
            for step in steps:
                on_step(step)
                if step.number == (stop_after or step.steps):
                    break
        yield step.audio  # after the chain has ended: what is done with it takes time

    def synthesize_steps(self, mel: Any, seed: int | None = None, *, force: bool = False) -> Generator[ChainStep]:
        """`Vocoder.synthesize`, with what each step predicts for the end of the chain, as soon as it is known.

        It needs a diffusion model that was exported with --stream, over gRPC or in-process. The whole mel is one
        request. Close the generator to end the chain at its next step and keep what there is.

        Args:
            mel: (n_mels, frames), or (batch, n_mels, frames).
            seed: seed of the noise; a fresh one if left out.
            force: see `Vocoder.synthesize`, also for other errors.

        Yields:
            The predicted result after each step; the last is the result.

        Raises:
            InferenceError: the answers end before the last step, or see `Vocoder.synthesize`.
            UsageError: the model has no chain; there are more frames or items than one request may have; the server
                cannot be reached in a way that has several answers.
            UnknownModelError: the repository has no model that streams.
        """
        checked = self.checked_mel(mel, force=force)
        twin = self._twin()
        name, described = twin.name, contract.ModelContract.from_parameters(twin.name, twin.parameters)
        if seed is None:
            seed = fresh_seed()
        else:
            self.check_seed(seed)
        batch: MelBatch = checked if checked.ndim == 3 else checked[np.newaxis]
        items, _, frames = batch.shape
        if items > (twin.max_batch_size or items):
            raise UsageError(f"{items} mels: model {name} takes at most {twin.max_batch_size} in one request")
        described.check_frames(name, items, frames)
        inputs: dict[str, NDArray[Any]] = {
            contract.MEL: batch,
            contract.SEED: np.full((items, 1), seed, dtype=np.uint64),
            contract.FIRST_SAMPLE: np.zeros((items, 1), dtype=np.int64),
        }
        hop_length = described.mel.hop_length
        deadline = self._deadline(items * frames * hop_length / self.sample_rate)
        parameters = None if self.sampling is None else self.sampling.to_parameters()
        self._check_wanted()
        step = steps = 0
        with closing(self._transport.infer_stream(name, self.version, inputs, deadline, parameters)) as answers:
            for answer in answers:
                self._check_wanted()
                audio = self._checked_audio(answer, (items, 1, hop_length * frames))
                step, steps = (int(_number(answer, name, np.int32)) for name in (contract.STEP, contract.STEPS))
                timestep = float(_number(answer, contract.TIMESTEP, np.float32))
                yield ChainStep(step, steps, timestep, audio if checked.ndim == 3 else audio[0])
        if not step or step < steps:
            raise InferenceError(f"{self.url}: model {name} sent {step} of {steps or 'all'} steps, and no more")


def _number(answer: dict[str, NDArray[Any]], name: str, dtype: type[np.generic]) -> Any:
    """A number that is the same for all items.

    Raises:
        ContractError: the answer has none.
    """
    found = answer.get(name)
    if found is None or found.size == 0 or found.dtype != dtype:
        raise ContractError(f"the answer of a chain has no {name} in {np.dtype(dtype)}")
    return found.flat[0]
