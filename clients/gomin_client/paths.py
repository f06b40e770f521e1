"""From input paths to output paths. Nothing here touches a file but to ask whether a path is a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gomin_client.audio import FORMATS
from gomin_client.errors import UsageError

DEFAULT_EXTENSION = ".wav"


def plan_outputs(inputs: Sequence[Path], output: str | None, label: str) -> list[Path]:
    """Choose an output file for every input.

    Args:
        inputs: at least one.
        output: an audio file, for a single input; or a directory, for any number; or None, for files beside the inputs.
        label: added to the names of files beside the inputs, as in a.wav → a_LABEL.wav.

    Returns:
        One path for each input.

    Raises:
        UsageError: an extension that cannot be written, a file name for several inputs, two inputs with one output, or
            an output that would overwrite an input.
    """
    outputs = [_output(path, output, label, single=len(inputs) == 1) for path in inputs]
    taken: dict[Path, Path] = {}
    for source, target in zip(inputs, outputs, strict=True):
        if taken.get(target) == source:
            raise UsageError(f"{source} is given twice")
        if target in taken:
            raise UsageError(f"{taken[target]} and {source} would both be written to {target}; give them in two calls")
        taken[target] = source
    sources = {path.resolve() for path in inputs}
    for source, target in zip(inputs, outputs, strict=True):
        if target.resolve() in sources:
            raise UsageError(f"{source} would be written to {target}, which is an input; choose another --output")
    return outputs


def check_extra(path: Path, inputs: Sequence[Path], outputs: Sequence[Path], extension: str) -> None:
    """Refuse one more file to write, such as a picture, that is an input or an output, or misnamed.

    Raises:
        UsageError: the file would overwrite another, or has another extension.
    """
    if path.suffix.lower() != extension:
        raise UsageError(f"{path}: expected a file name that ends with {extension}")
    if path.resolve() in {other.resolve() for other in (*inputs, *outputs)}:
        raise UsageError(f"{path} is an input or an output; choose another name")


def _output(source: Path, output: str | None, label: str, single: bool) -> Path:
    if output in ("", "-"):
        raise UsageError(f"output {output!r}: expected an audio file or a directory")
    if not source.name:
        raise UsageError(f"{source}: is a directory; expected an audio file")
    if output is None:
        return source.with_name(f"{source.stem}_{label.replace('/', '_')}{DEFAULT_EXTENSION}")
    path = Path(output)
    is_directory = output.endswith("/") or path.is_dir() or not path.suffix
    if is_directory:
        return path / f"{source.stem}{DEFAULT_EXTENSION}"
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: cannot write {path.suffix} files; known are {', '.join(FORMATS)}, or a directory")
    if not single:
        raise UsageError(f"{path} is one file, but there are several inputs; give a directory, such as {path.stem}/")
    return path
