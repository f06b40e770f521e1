"""Options about one sampling chain, of `synthesize` and `reconstruct`: its seed, and its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from gomin_client.cli.model_options import Seed
from gomin_client.errors import UsageError

if TYPE_CHECKING:
    from gomin_client.batch.outputs import FileJob
    from gomin_client.batch.tasks import Steps
    from gomin_client.cli.model_options import ModelOptions
    from gomin_client.cli.options import QuietReportOptions

NEEDS = "Needs gomin_diffusion_stream (gomin-export diffusion --stream) over gRPC or local:; a file is one request."


@dataclass(frozen=True)
class ChainOptions:
    """The seed of a diffusion model's chain, and what to do with its steps."""

    seed: Seed = None
    progress: Annotated[
        bool,
        typer.Option("--progress", help=f"Show each step of a diffusion model's chain, of a single file. {NEEDS}"),
    ] = False
    stop_after: Annotated[
        int | None,
        typer.Option(
            metavar="STEP",
            min=1,
            help=f"Keep what this step of a diffusion model's chain predicts for its end, and end it there. {NEEDS}",
            show_default=False,
        ),
    ] = None

    def steps(
        self, jobs: Sequence[FileJob], model: ModelOptions, report: QuietReportOptions, *, live: bool
    ) -> Steps | None:
        """How chains are followed; None if they need not be.

        Raises:
            UsageError: nothing could be shown; windows are asked for; audio is wanted before the mel is known.
        """
        from gomin_client.batch.tasks import Steps

        if not self.progress and self.stop_after is None:
            return None
        if live:
            raise UsageError("--progress and --stop-after need the whole mel: give a file instead of --stream")
        if model.window is not None:
            raise UsageError(f"--window {model.window}: with --progress or --stop-after, a file is one request")
        if self.progress and len(jobs) != 1:
            raise UsageError(f"--progress shows the steps of a single file; there are {len(jobs)}")
        if self.progress and (report.quiet or report.as_json):
            raise UsageError(f"--progress with {'--quiet' if report.quiet else '--json'}: nothing would be shown")
        return Steps(self.stop_after, report=self.progress)
