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
    before = config.read_text()
    lines = parameter_lines({"gomin.sampler": "ddpm", "gomin.steps": "50", "gomin.schedule": "linear"})
    assert lines in before
    chain = SamplerSettings("ddim", 3, "linear", 0.5, "49,20,0")

    write_default_chain(config.parent, chain)

    values = {"sampler": "ddim", "steps": "3", "schedule": "linear", "eta": "0.5", "timesteps": "49,20,0"}
    expected = parameter_lines({f"gomin.{name}": value for name, value in values.items()})
    assert config.read_text() == before.replace(lines, expected)
    with Vocoder(f"local:{tmp_path / 'r'}", "diffusion") as vocoder:
        assert vocoder.sampling == chain
    write_default_chain(config.parent, SamplerSettings("ddpm", 50, "linear"))
    assert config.read_text() == before


def test_a_chain_in_other_lines_is_left_alone(repository: Path, tmp_path: Path) -> None:
    text = (repository / "gomin_diffusion" / "config.pbtxt").read_text()
    text = text.replace('parameters { key: "gomin.steps" value', 'parameters { key: "gomin.steps"\n value')
    (tmp_path / "config.pbtxt").write_text(text)

    with pytest.raises(FileError, match=r"config\.pbtxt: the default chain is not in the lines"):
        write_default_chain(tmp_path, SamplerSettings("unipc", 5, "linear"))
    assert (tmp_path / "config.pbtxt").read_text() == text
