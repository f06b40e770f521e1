import shutil
from pathlib import Path

import pytest

from gomin_client import Vocoder
from gomin_client.errors import FileError
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.tools.default_chain import write_default_chain
from gomin_export.repository.config import parameter_lines


def test_it_writes_what_gomin_export_writes(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "r")
    config = tmp_path / "r" / "gomin_diffusion" / "config.pbtxt"
    comment = '# parameters { key: "gomin.steps" value: { string_value: "3" } }\n'
    config.write_text(comment + config.read_text())
    before = config.read_text()
    lines = parameter_lines({"gomin.sampler": "ddpm", "gomin.steps": "50", "gomin.schedule": "linear"})
    assert lines in before
    chain = SamplerSettings("ddim", 3, "linear", 0.5, "49,20,0")

    write_default_chain(config, chain)

    values = {"sampler": "ddim", "steps": "3", "schedule": "linear", "eta": "0.5", "timesteps": "49,20,0"}
    expected = parameter_lines({f"gomin.{name}": value for name, value in values.items()})
    assert config.read_text() == before.replace(lines, expected)
    with Vocoder(f"local:{tmp_path / 'r'}", "diffusion") as vocoder:
        assert vocoder.sampling == chain
    write_default_chain(config, SamplerSettings("ddpm", 50, "linear"))
    assert config.read_text() == before


@pytest.mark.parametrize(
    ("old", "new", "more"),
    [
        ('parameters { key: "gomin.steps" value', 'parameters { key: "gomin.steps"\n value', ""),
        # in another form too, which would stay in effect
        ("", "", 'parameters { key: "gomin.eta", value: { string_value: "1" } }\n'),
        ("", "", 'parameters { key: "gomin.steps", value: { string_value: "9" } }\n'),
    ],
)
def test_a_chain_in_other_lines_is_left_alone(repository: Path, tmp_path: Path, old: str, new: str, more: str) -> None:
    config = tmp_path / "config.pbtxt"
    before = (repository / "gomin_diffusion" / "config.pbtxt").read_text()
    text = before.replace(old, new, 1) + more
    assert text != before
    config.write_text(text)

    with pytest.raises(FileError, match=r"config\.pbtxt: the default chain is not in the lines"):
        write_default_chain(config, SamplerSettings("unipc", 5, "linear"))
    assert config.read_text() == text
