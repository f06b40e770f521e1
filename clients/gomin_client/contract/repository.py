"""Reading a Triton model repository from disk: its models, their versions and config parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gomin_client.errors import ContractError
from gomin_client.transports.forking import grpc_without_fork_handlers

CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Step:
    """One step of an ensemble.

    Attributes:
        model: name of the model that it calls; its newest version.
        inputs: the model's input → tensor of the ensemble.
        outputs: the model's output → tensor of the ensemble.
    """

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def models(repository: Path) -> list[str]:
    """Names of the models that have a config and at least one version, sorted."""
    if not repository.is_dir():
        return []
    return sorted(entry.name for entry in repository.iterdir() if (entry / CONFIG).is_file() and versions(entry))


def versions(model: Path) -> list[int]:
    """Version numbers of a model, ascending; empty if the model does not exist."""
    if not model.is_dir():
        return []
    return sorted(
        int(entry.name) for entry in model.iterdir() if re.fullmatch("[1-9][0-9]*", entry.name) and entry.is_dir()
    )


def read_config(path: Path) -> dict[str, str]:
    """The string parameters of a config.pbtxt.

    Raises:
        ContractError: the file is not readable as a Triton model configuration.
    """
    return parse_config(path)[0]


def parse_config(path: Path) -> tuple[dict[str, str], int]:
    """The string parameters of a config.pbtxt, and its max_batch_size.

    Raises:
        ContractError: the file is not readable as a Triton model configuration.
    """
    try:
        config = parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ContractError) as error:
        raise ContractError(f"{path}: cannot be read as a Triton model configuration: {error}") from error
    return {name: value.string_value for name, value in config.parameters.items()}, config.max_batch_size


def parse_steps(path: Path) -> tuple[Step, ...]:
    """The steps of an ensemble's config.pbtxt.

    Raises:
        ContractError: the file is not readable as a Triton model configuration, has no steps, or names a version.
    """
    try:
        steps = parse(path.read_text(encoding="utf-8")).ensemble_scheduling.step
    except (OSError, UnicodeDecodeError, ContractError) as error:
        raise ContractError(f"{path}: cannot be read as a Triton model configuration: {error}") from error
    if not steps:
        raise ContractError(f"{path}: has no ensemble_scheduling with steps, which gomin-export writes")
    for step in steps:
        if step.model_version != -1:
            raise ContractError(
                f"{path}: its step {step.model_name} has model_version {step.model_version}; in-process, steps run the "
                "newest version, -1"
            )
    return tuple(Step(step.model_name, dict(step.input_map), dict(step.output_map)) for step in steps)


def parse(text: str) -> Any:
    """A config.pbtxt as a protobuf message.

    Raises:
        ContractError: it is not a Triton model configuration.
    """
    from google.protobuf import text_format

    with grpc_without_fork_handlers():  # tritonclient imports gRPC
        from tritonclient.grpc.model_config_pb2 import ModelConfig

    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise ContractError(str(error)) from error
