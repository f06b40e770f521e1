"""`gomin-client results`: the state of a batch that was made in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gomin_client.cli.console import echo, to_json


def results(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE|FOLDER...",
            help="Files that --results wrote, or folders of them (*.jsonl); those of all shards.",
            show_default=False,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not text.")] = False,
) -> None:
    """Merge the results files of all shards of a batch.

    Prints counts, duration of the audio, speed, failures, and files or shards that have no result, or several. The
    status is 1 unless every file was made, once.

    Examples:

    gomin-client results results/

    gomin-client results 1.jsonl 2.jsonl --json
    """
    from gomin_client.tools.results import merge

    merged = merge(files)
    for path in merged.truncated:
        echo(f"gomin-client: warning: {path}: a run was killed while it wrote a line, which is left out", err=True)
    if as_json:
        typer.echo(to_json(merged.to_dict()))
    else:
        for line in merged.to_text().splitlines():
            echo(line)
    if not merged.is_complete:
        raise typer.Exit(1)
