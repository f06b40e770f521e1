"""Writes the default chain of a diffusion model into its config.pbtxt, as gomin-export does."""

from __future__ import annotations

import re
from pathlib import Path

from gomin_client.contract.choices import SAMPLER_PARAMETERS
from gomin_client.contract.model import PARAMETER_PREFIX
from gomin_client.contract.repository import parse, read_config
from gomin_client.errors import FileError
from gomin_client.files.atomic import atomic_write
from gomin_client.sampling.settings import SamplerSettings

_LINE = re.compile(
    rf'^parameters \{{ key: "{re.escape(PARAMETER_PREFIX)}({"|".join(SAMPLER_PARAMETERS)})" '
    r'value: \{ string_value: "[^"\n]*" \} \}\n',
    re.MULTILINE,
)


def write_default_chain(config: Path, chain: SamplerSettings) -> None:
    """Replace the default chain in a model's config.pbtxt; everything else there is kept.

    A running server keeps the chain that it has loaded, until it loads the model again.

    Args:
        config: the file.
        chain: the chain, with its number of steps.

    Raises:
        FileError, ContractError: see `with_default_chain`; or the file cannot be written.
    """
    text = with_default_chain(config, chain)
    with atomic_write(config) as part:
        part.write_text(text, encoding="utf-8")


def with_default_chain(config: Path, chain: SamplerSettings) -> str:
    """The text of a config.pbtxt with another default chain.

    Args:
        config: the file.
        chain: the chain, with its number of steps.

    Raises:
        FileError: its chain is not in the lines that gomin-export writes.
        ContractError: the file cannot be read as a Triton model configuration.
    """
    before = read_config(config)
    text = config.read_text(encoding="utf-8")
    found = list(_LINE.finditer(text))
    own = {PARAMETER_PREFIX + name for name in SAMPLER_PARAMETERS}
    wanted = {PARAMETER_PREFIX + name: f"{value}" for name, value in chain.to_parameters().items()}
    lines = "".join(
        f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}\n' for name, value in wanted.items()
    )
    first = found[0].start() if found else 0
    replaced = _LINE.sub("", text[:first]) + lines + _LINE.sub("", text[first:])
    after = {name: value.string_value for name, value in parse(replaced).parameters.items()}
    others = {name: value for name, value in before.items() if name not in own}
    # the second comparison fails if a parameter is also set in another form, which would stay in effect
    if not found or len(found) != len(own & before.keys()) or after != others | wanted:
        raise FileError(
            f"{config}: the default chain is not in the lines that gomin-export writes, one for each of "
            f"{', '.join(SAMPLER_PARAMETERS)}: set it by hand"
        )
    return replaced
