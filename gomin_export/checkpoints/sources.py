"""Where a checkpoint comes from: a file, or a repository of the Hugging Face Hub; and the hash that pins it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from gomin_client.errors import UsageError
from gomin_export.checkpoints.files import require_file
from gomin_export.errors import CheckpointError
from gomin_export.parity.record import sha256 as digest_of

HUB = "hf://"

_HUB_URL = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)")
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.IGNORECASE)


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint file on this machine.

    Attributes:
        path: the file.
        name: its origin, for the record: the name of a file; or hf://USER/REPOSITORY@COMMIT/FILE.
        sha256: SHA-256 of the file, in hexadecimal.
    """

    path: Path
    name: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """A file on this machine.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            require_file(path)
            return cls(path, _recorded(path.name), digest_of(path))
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


def locate(
    checkpoint: str | Path, sha256: str | None = None, say: Callable[[str], None] = lambda _: None
) -> CheckpointFile:
    """The file that an option names; one of the Hub is downloaded, unless it is in the Hub's cache.

    Args:
        checkpoint: a path, or hf://USER/REPOSITORY[@REVISION]/FILE.
        sha256: the SHA-256 that the file must have; None for any.
        say: called with a line of text before a download.

    Raises:
        CheckpointError: the file cannot be read or downloaded, or has another SHA-256.
        UsageError: the option does not name a file, or huggingface_hub is missing.
    """
    expected = None
    if sha256 is not None:
        match = _SHA256.fullmatch(sha256.strip())
        if match is None:
            raise UsageError(f"--sha256 {sha256}: expected 64 hexadecimal digits")
        expected = match[1].lower()
    text = str(checkpoint)
    if text.startswith(HUB):
        source = _from_hub(text, say)
    elif re.match(r"[a-z][a-z0-9+.-]*://", text):
        raise UsageError(f"--ckpt {text}: expected a file or {HUB}USER/REPOSITORY/FILE; download the file first")
    else:
        source = CheckpointFile.of(Path(text))
    if expected is not None and source.sha256 != expected:
        raise CheckpointError(f"{source.path}: its SHA-256 is {source.sha256}; expected {expected} (--sha256)")
    return source


def _from_hub(url: str, say: Callable[[str], None]) -> CheckpointFile:
    match = _HUB_URL.fullmatch(url)
    if match is None:
        raise UsageError(f"--ckpt {url}: expected {HUB}USER/REPOSITORY/FILE, or {HUB}USER/REPOSITORY@REVISION/FILE")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise UsageError(f"--ckpt {url} needs the package huggingface_hub: pip install 'gomin-triton[hub]'") from error
    if not sys.stderr.isatty():
        disable_progress_bars()
    say(f"looking up {url}")
    revision = unquote(match["revision"]) if match["revision"] else None
    try:
        path = Path(hf_hub_download(match["repository"], match["file"], revision=revision))
    except HFValidationError as error:
        raise UsageError(f"--ckpt {url}: {_first_line(error)}") from error
    except Exception as error:  # of the hub, its HTTP client and the file system, which have no common base
        raise CheckpointError(f"{url}: {_hub_problem(error)}") from error
    # the cache has snapshots/COMMIT/FILE
    commit = path.parts[-1 - len(Path(match["file"]).parts)]
    return CheckpointFile(path, _recorded(f"{HUB}{match['repository']}@{commit}/{match['file']}"), digest_of(path))


def _hub_problem(error: Exception) -> str:
    """Why a download failed, for people."""
    from huggingface_hub import errors

    # a more special error comes before those that it derives from
    for kind, problem in (
        (errors.GatedRepoError, "its repository is gated: accept its terms on the Hub, and log in (hf auth login)"),
        (errors.RepositoryNotFoundError, "there is no such repository, or it is private: log in (hf auth login)"),
        (errors.RevisionNotFoundError, "its repository has no such revision"),
        (errors.LocalEntryNotFoundError, "the Hub cannot be reached, and the file is not in the local cache"),
        (errors.EntryNotFoundError, "its repository has no such file in this revision"),
    ):
        if isinstance(error, kind):
            return problem
    return f"cannot be downloaded: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _recorded(name: str) -> str:
    """A name without the characters that a line of config.pbtxt cannot hold."""
    return re.sub(r'["\\\x00-\x1f\x7f]', "?", name.encode("utf-8", "replace").decode("utf-8"))
