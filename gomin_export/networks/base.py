"""What both vocoders share: mel settings, mel extraction and loading a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from gomin_client.mel.features import MelConfig, mel_spectrogram
from gomin_export.checkpoints import CheckpointReader, load_network


class NetworkConfig(Protocol):
    """A frozen dataclass of constructor arguments that can be read from a checkpoint's tensors."""

    @property
    def halo_frames(self) -> int:
        """Mel frames to either side that the output of one call depends on."""
        ...

    @property
    def bytes_per_frame(self) -> int:
        """Peak memory of one call of the ONNX model beyond that of the loaded model, in bytes per mel frame."""
        ...

    @classmethod
    def from_tensors(cls, tensors: CheckpointReader, overrides: Mapping[str, Any]) -> NetworkConfig:
        """The config that the tensors' shapes show; `overrides` win."""
        ...


def require_counts(values: Mapping[str, Any]) -> None:
    """Check that config values, and those in lists and in lists of lists, are whole numbers of at least 1.

    Raises:
        ValueError: one is not; names it.
    """

    def check(name: str, value: Any) -> None:
        if isinstance(value, (list, tuple)) and value:
            for item in value:
                check(name, item)
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} contains {value!r}; expected whole numbers of at least 1")

    for name, value in values.items():
        check(name, value)


class MelInverter(nn.Module):
    """Base of the networks that turn a mel spectrogram into a waveform.

    Attributes:
        mel_config: the mel spectrograms that the network was trained on.
        config: the constructor arguments.
    """

    kind: ClassVar[str]
    config_class: ClassVar[type[Any]]
    config: NetworkConfig

    def __init__(self, n_mels: int, sample_rate: int, win_length: int, hop_length: int) -> None:
        super().__init__()
        self.mel_config = MelConfig(
            sample_rate=sample_rate, win_length=win_length, hop_length=hop_length, n_mels=n_mels
        )

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waveform."""
        return self.mel_config.sample_rate

    @property
    def hop_length(self) -> int:
        """Waveform samples per mel frame."""
        return self.mel_config.hop_length

    @property
    def n_mels(self) -> int:
        """Mel bands."""
        return self.mel_config.n_mels

    @property
    def halo_frames(self) -> int:
        """Mel frames to either side that the output of one call depends on."""
        return self.config.halo_frames

    @property
    def bytes_per_frame(self) -> int:
        """Peak memory of one call of the ONNX model beyond that of the loaded model, in bytes per mel frame."""
        return self.config.bytes_per_frame

    @property
    def num_diffusion_steps(self) -> int | None:
        """Timesteps that the network was trained with; None for a network that makes the waveform in one pass."""
        return None

    @classmethod
    def from_pretrained(cls, pretrained_model_path: str | Path, **config: Any) -> Self:
        """Load a GOMIN checkpoint, safely and strictly, in evaluation mode.

        Args:
            pretrained_model_path: a state dict saved by torch or as safetensors.
            **config: constructor arguments; those left out are read from the tensors.

        Raises:
            CheckpointError: the file is not a checkpoint of this network; the message names file and tensor.
        """
        return load_network(cls, pretrained_model_path, config)

    @torch.no_grad()
    def prepare_melspectrogram(self, audio: Tensor) -> Tensor:
        """The mel spectrogram that the network inverts.

        Args:
            audio: (channels, samples) or (samples,) float waveform at `sample_rate`.

        Returns:
            (channels, n_mels, frames) or (n_mels, frames) float32, with frames = 1 + samples // hop_length.
        """
        waves = np.atleast_2d(audio.detach().cpu().numpy())
        mels = np.stack([mel_spectrogram(wave, self.mel_config) for wave in waves])
        mel = torch.from_numpy(mels).to(audio.device)
        return mel if audio.ndim == 2 else mel[0]
