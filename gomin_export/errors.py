"""The errors of the export side, each a `gomin_client.errors.GominError`: the command line needs a single `except`.

GominError
├── CheckpointError   6  the file is not a usable GOMIN checkpoint
├── ParityError       4  the exported model does not compute what the PyTorch network computes
└── RepositoryError   1  the model repository cannot take the model
    ├── ContractConflictError   1  its versions of the model have other settings
    └── VersionTakenError       1  another export has taken the version number
"""

from gomin_client.errors import GominError


class CheckpointError(GominError):
    """A checkpoint file that is missing, damaged, unsafe or not of the expected network."""

    exit_code = 6


class ParityError(GominError):
    """An exported model whose outputs differ from the reference network's by more than the tolerance."""

    exit_code = 4


class RepositoryError(GominError):
    """A model repository that cannot take a model: not writable, or its models have another contract."""

    exit_code = 1


class ContractConflictError(RepositoryError):
    """A model whose versions in the repository have another contract than a new one."""


class VersionTakenError(RepositoryError):
    """A version that another export has placed since this one was planned."""
