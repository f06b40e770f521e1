"""Writes the default chain of a diffusion model into its config.pbtxt, as gomin-export does."""

from __future__ import annotations

import re
from pathlib import Path

from gomin_client.contract.choices import SAMPLER_PARAMETERS
from gomin_client.contract.model import PARAMETER_PREFIX
from gomin_client.contract.repository import CONFIG, parse, read_config
from gomin_client.errors import FileError
from gomin_client.files.atomic import atomic_write
from gomin_client.sampling.settings import SamplerSettings

_LINE = re.compile(
    rf'parameters \{{ key: "{re.escape(PARAMETER_PREFIX)}({"|".join(SAMPLER_PARAMETERS)})" '
    r'value: \{ string_value: "[^"\n]*" \} \}\n'
)


def write_default_chain(model: Path, chain: SamplerSettings) -> None:
    """Replace the default chain of a model in a local repository; everything else in its config.pbtxt is kept.

    A running server goes on with the chain that it has loaded, until it loads the model again.

    Args:
        model: the model's folder.
        chain: the chain, with its number of steps.

    Raises:
        FileError: the config cannot be written, or its chain is not in the lines that gomin-export writes.
        ContractError: the config cannot be read.
    """
    path = model / CONFIG
    before = read_config(path)
    text = path.read_text(encoding="utf-8")
    found = list(_LINE.finditer(text))
    own = {PARAMETER_PREFIX + name for name in SAMPLER_PARAMETERS}
    if not found or len(found) != len(own & before.keys()):
        raise FileError(
            f"{path}: the default chain is not in the lines that gomin-export writes, one for each of "
            f"{', '.join(SAMPLER_PARAMETERS)}: set it by hand"
        )
    wanted = {PARAMETER_PREFIX + name: f"{value}" for name, value in chain.to_parameters().items()}
    lines = "".join(
        f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}\n' for name, value in wanted.items()
    )
    first = found[0].start()
    replaced = _LINE.sub("", text[:first]) + lines + _LINE.sub("", text[first:])
    after = {name: value.string_value for name, value in parse(replaced).parameters.items()}
    assert after == {name: value for name, value in before.items() if name not in own} | wanted
    with atomic_write(path) as part:
        part.write_text(replaced, encoding="utf-8")
