from pathlib import Path

import numpy as np
import pytest

from gomin_client.contract.model import ModelContract
from gomin_client.errors import ContractError
from gomin_client.mel.features import MelConfig
from gomin_client.vocoder import Vocoder

CONTRACT = ModelContract("diffusion", MelConfig(22050, 800, 200, 80), 12, 50)


def test_parameters_there_and_back() -> None:
    assert ModelContract.from_parameters("m", CONTRACT.to_parameters() | {"intra_op_thread_count": "2"}) == CONTRACT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gomin.kind": None}, "m is not a GOMIN model"),
        ({"gomin.kind": "vocoder"}, "of kind 'vocoder'"),
        ({"gomin.hop_length": None}, r"gomin\.hop_length is missing"),
        ({"gomin.halo_frames": "many"}, r"gomin\.halo_frames is 'many'"),
        ({"gomin.num_diffusion_steps": None}, r"gomin\.num_diffusion_steps is missing"),
        ({"gomin.f_max": "8000.0"}, r"gomin\.f_max is '8000.0', but .* have 11025.0"),
        ({"gomin.n_fft": "2048"}, r"gomin\.n_fft is '2048', but .* have 1024"),
        ({"gomin.sample_rate": "-1"}, r"gomin\.sample_rate is -1; expected"),
        ({"gomin.sample_rate": "1" * 13}, r"gomin\.sample_rate is 1111111111111; expected 0 to 1048576"),
        ({"gomin.halo_frames": "-1"}, r"gomin\.halo_frames is -1; expected 0 to"),
        ({"gomin.n_mels": "9" * 5000}, r"gomin\.n_mels is '9{40}'; expected a whole number"),
        ({"gomin.max_frames": "many"}, r"gomin\.max_frames is 'many'"),
        ({"gomin.max_frames": "0"}, r"gomin\.max_frames is 0; expected at least 1"),
        ({"gomin.f_min": None}, r"gomin\.f_min is None"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_an_error(change: dict[str, str | None], words: str) -> None:
    merged = {**CONTRACT.to_parameters(), **change}
    parameters = {name: value for name, value in merged.items() if value is not None}

    with pytest.raises(ContractError, match=words):
        ModelContract.from_parameters("m", parameters)


def test_a_bound_is_read_and_kept_but_is_no_part_of_what_versions_must_agree_in() -> None:
    bounded = ModelContract.from_parameters("m", {**CONTRACT.to_parameters(), "gomin.max_frames": "300"})

    assert bounded.max_frames == 300
    assert bounded.same_model(CONTRACT, 1)
    assert bounded.to_parameters() == CONTRACT.to_parameters()
    bounded.check_frames("m", 3, 100)
    CONTRACT.check_frames("m", 10**6, 10**6)
    with pytest.raises(ContractError, match="m takes at most 300 frames in one request, this one has 3 × 101"):
        bounded.check_frames("m", 3, 101)


def test_a_mel_of_other_settings_is_refused_by_both_values() -> None:
    CONTRACT.check_mel("gomin_gan", MelConfig(22050, 800, 200, 80))
    for given, words in [
        (MelConfig(24000, 800, 200, 80), "the mel has sample_rate 24000, model gomin_gan takes 22050"),
        (MelConfig(22050, 800, 256, 80), "the mel has hop_length 256, model gomin_gan takes 200"),
        (MelConfig(22050, 800, 200, 100), "the mel has n_mels 100, model gomin_gan takes 80"),
    ]:
        with pytest.raises(ContractError, match=words):
            CONTRACT.check_mel("gomin_gan", given)


def test_a_vocoder_refuses_a_mel_of_other_settings(repository: Path) -> None:
    mel = np.zeros((128, 3), np.float32)
    with Vocoder(f"local:{repository}") as vocoder:
        assert vocoder.synthesize(mel, mel_config=MelConfig()).shape == (768,)
        with pytest.raises(ContractError, match="the mel has win_length 2048, model gomin_gan takes 1024"):
            vocoder.synthesize(mel, mel_config=MelConfig(win_length=2048))
