"""Records of an export beside a model: the gate's report, and a few cases to verify a deployment with."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract.model import Provenance
from gomin_export.errors import RepositoryError
from gomin_export.parity.gate import Case, Expected, Report
from gomin_export.repository.staging import write_file

REPORT_FILE = "parity.json"
VECTORS_FILE = "reference.npz"

_REMEDY = "gomin-export writes it with every new version; to verify without it, give --ckpt"


def write_report(files: Path, report: Report) -> None:
    """Write parity.json into a version directory."""
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False)
    write_file(files / REPORT_FILE, text + "\n")


def file_digests(files: Path) -> dict[str, str]:
    """File → SHA-256 of the files that a version directory serves, and of its recorded cases.

    Files of subdirectories have names such as sampling/ddim.py.
    """
    return {
        path.relative_to(files).as_posix(): sha256(path)
        for path in sorted(files.rglob("*"))
        if path.suffix in (".onnx", ".data", ".py", ".npz", ".so") and path.is_file()
    }


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_report(files: Path) -> Report:
    """parity.json of a version directory, with the tolerance of the export.

    Raises:
        RepositoryError: there is none, or it is damaged.
    """
    path = files / REPORT_FILE
    try:
        report = Report.from_dict(json.loads(path.read_text(encoding="utf-8")))
        for name in ("contract", "files", "recipe"):
            if not isinstance(report.facts[name], dict):
                raise TypeError(f"{name} is not an object")
        if not report.outcomes or not isinstance(report.facts["checkpoint_sha256"], str):
            raise ValueError("it lacks cases, or the checkpoint's SHA-256")
    except FileNotFoundError:
        raise RepositoryError(f"{path}: no such file; {_REMEDY}") from None
    except (OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RepositoryError(f"{path}: is damaged ({type(error).__name__}: {error}); {_REMEDY}") from error
    return report


def read_provenance(files: Path) -> Provenance | None:
    """Provenance of a version, from its parity.json; None if that is missing or damaged."""
    try:
        report = read_report(files)
    except RepositoryError:
        return None
    facts = report.facts
    recorded = {name: str(facts.get(name, "")) for name in ("source", "operators", "operators_sha256")}
    return Provenance(facts["checkpoint_sha256"], str(facts.get("precision")), report.summary, **recorded)


def write_vectors(files: Path, cases: Sequence[Case]) -> None:
    """Write cases into a version directory, for `read_vectors`."""
    arrays: dict[str, NDArray[Any]] = {}
    for index, case in enumerate(cases):
        arrays[f"{index}.name"] = np.array(case.name)
        arrays[f"{index}.torch_error"] = np.array(case.torch_error)
        arrays[f"{index}.output"] = case.output
        arrays.update({f"{index}.input.{name}": tensor for name, tensor in case.inputs.items()})
    packed = io.BytesIO()  # not into the file: on a full disk, zipfile prints a traceback of its own
    np.savez_compressed(packed, **arrays)
    write_file(files / VECTORS_FILE, packed.getvalue())


def read_vectors(files: Path) -> list[Case]:
    """Cases recorded at export, from a version directory.

    Raises:
        RepositoryError: there are none, or they are damaged.
    """
    path = files / VECTORS_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        vectors = [
            Case.known(
                str(arrays[f"{index}.name"]),
                {name.split(".", 2)[2]: arrays[name] for name in arrays if name.startswith(f"{index}.input.")},
                Expected(arrays[f"{index}.output"], float(arrays[f"{index}.torch_error"])),
            )
            for index in range(sum(name.endswith(".name") for name in arrays))
        ]
    except FileNotFoundError:
        raise RepositoryError(f"{path}: no such file; {_REMEDY}") from None
    except Exception as error:  # numpy and zipfile raise many types of errors for damaged files
        raise RepositoryError(f"{path}: is damaged ({type(error).__name__}: {error}); {_REMEDY}") from error
    if not vectors:
        raise RepositoryError(f"{path}: is damaged (it holds no vectors); {_REMEDY}")
    return vectors
