"""Reads and replaces tritonserver's own command-line options."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence


def values(arguments: Sequence[str]) -> dict[str, str]:
    """Name → value of `--option VALUE` and `--option=VALUE`. The last occurrence counts."""
    return {name: value for name, value, _ in _options(arguments)}


def all_values(arguments: Sequence[str], name: str) -> list[str]:
    """The values of an option that may be given several times."""
    return [value for option, value, _ in _options(arguments) if option == name]


def without(arguments: Sequence[str], names: Collection[str]) -> list[str]:
    """The arguments without the options of these names and their values."""
    dropped = {position for name, _, positions in _options(arguments) if name in names for position in positions}
    return [argument for position, argument in enumerate(arguments) if position not in dropped]


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str, range]]:
    """Name, value and positions of each option."""
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if not name.startswith("--"):
            continue
        if equals:
            yield name, value, range(position, position + 1)
        else:
            following = arguments[position + 1] if position + 1 < len(arguments) else ""
            yield name, following, range(position, position + 2)
