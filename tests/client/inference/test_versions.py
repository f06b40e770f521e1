"""Which version of a model is called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from gomin_client import MockModel, MockTransport, UnknownModelError, Vocoder


def silent(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros((len(mel), 256 * mel.shape[-1]), np.float32)


@pytest.mark.parametrize(("version", "called"), [(None, 5), (2, 2)])
def test_the_newest_or_the_one_that_is_asked_for(version: int | None, called: int) -> None:
    transport = MockTransport({"gomin_gan": replace(MockModel.vocoder(silent), versions=(1, 2, 5))})
    with Vocoder(transport, version=version) as vocoder:
        vocoder.synthesize(np.zeros((128, 3)))
    assert [call.version for call in transport.calls] == [called]


def test_a_version_that_is_not_ready() -> None:
    transport = MockTransport({"gomin_gan": replace(MockModel.vocoder(silent), versions=(1, 2, 5))})
    with pytest.raises(UnknownModelError, match=r"model gomin_gan has no version 3 that is ready; it has 1, 2, 5"):
        Vocoder(transport, version=3)
