"""Records of options: a command takes a frozen dataclass for every group of options that belong together.

    @dataclass(frozen=True)
    class ReportOptions:
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False

    @app.command()
    @with_records
    def info(url: Url = None, *, report: ReportOptions) -> None: ...

The command above has the options --url, --json and --quiet. A record may be a field of another record. A record that
stands for an object of the library has a method `build()` that makes it, and imports what that needs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints


def with_records(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of its records, and the records themselves when it is called.

    Args:
        command: a function with typer's annotations. Parameters whose type is a dataclass are records: every field is
            annotated like a parameter of a typer command, or is a record. Field names are unique over all records.

    Returns:
        A function whose signature typer can read.
    """
    types = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters
    options: list[inspect.Parameter] = []
    for name, parameter in own.items():
        if is_dataclass(types[name]):
            options += _options(types[name])
        else:
            options.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=types[name]))

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        command(**{name: _value(name, types[name], given) for name in own})

    # typer reads both: the order and defaults in the one, the types in the other
    with_options.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    with_options.__annotations__ = {option.name: option.annotation for option in options}
    return with_options


def _options(record: Any) -> Iterator[inspect.Parameter]:
    """The fields of a record, and of the records in it, as parameters of a command."""
    types = get_type_hints(record, include_extras=True)
    for field in fields(record):
        if is_dataclass(types[field.name]):
            yield from _options(types[field.name])
        else:
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            yield inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name]
            )


def _value(name: str, kind: Any, given: dict[str, Any]) -> Any:
    """What a parameter or field gets: its option's value, or the record made of its fields' options."""
    if not is_dataclass(kind):
        return given[name]
    types = get_type_hints(kind, include_extras=True)
    record: Callable[..., Any] = kind  # type: ignore[assignment]
    return record(**{field.name: _value(field.name, types[field.name], given) for field in fields(kind)})
