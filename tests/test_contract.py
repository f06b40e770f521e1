import pytest

from gomin_client.contract import ModelContract
from gomin_client.errors import ContractError
from gomin_client.mel import MelConfig

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
        ({"gomin.f_min": None}, r"gomin\.f_min is None"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_an_error(change: dict[str, str | None], words: str) -> None:
    merged = {**CONTRACT.to_parameters(), **change}
    parameters = {name: value for name, value in merged.items() if value is not None}

    with pytest.raises(ContractError, match=words):
        ModelContract.from_parameters("m", parameters)
