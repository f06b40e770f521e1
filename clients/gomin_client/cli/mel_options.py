"""The options of commands that make or read mels, in records; see `records`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from gomin_client.cli.model_options import ConnectionOptions, ModelOptions
from gomin_client.cli.options import FORMAT_HELP, Output
from gomin_client.errors import UsageError
from gomin_client.files import formats

if TYPE_CHECKING:
    from gomin_client.mel.scales import MelReading


@dataclass(frozen=True)
class MelOutputOptions:
    """Where mels are written to, and how."""

    output: Output = None
    extension: Annotated[
        str,
        typer.Option("--format", "-f", metavar="NAME", help=FORMAT_HELP + ", ".join(formats.names(formats.MEL))),
    ] = "npz"

    @property
    def format(self) -> str:
        """The extension of outputs whose name has none.

        Raises:
            UsageError: not a format that can be written.
        """
        return formats.named(self.extension, formats.MEL).extension


@dataclass(frozen=True)
class MelModelOptions:
    """The model whose mel settings are taken."""

    url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Take the mel settings of the model at this address.", show_default=False),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="The model whose mel settings are taken, with --url.",
            show_default=False,
        ),
    ] = None
    connection: ConnectionOptions = field(default_factory=ConnectionOptions)

    def build(self) -> ModelOptions | None:
        """The model; None if no server is asked.

        Raises:
            UsageError: a model without a server.
        """
        if self.model and not self.url:
            raise UsageError(
                f"--model {self.model}: give --url too; without it no server is asked, and the settings are GOMIN's"
            )
        if not self.url:
            return None
        return ModelOptions(url=self.url, model=self.model or "gan", connection=self.connection)


@dataclass(frozen=True)
class MelSettingsOptions:
    """Settings of mels; see `MelConfig`."""

    sample_rate: Annotated[
        int | None,
        typer.Option(
            "--sample-rate",
            "--sample_rate",
            metavar="HZ",
            help="Sample rate of the mel, in Hz. Default: 24000.",
            show_default=False,
        ),
    ] = None
    win_length: Annotated[
        int | None,
        typer.Option(
            "--win-length",
            "--win_length",
            metavar="SAMPLES",
            help="Length of the analysis window, in samples. Default: 1024.",
            show_default=False,
        ),
    ] = None
    hop_length: Annotated[
        int | None,
        typer.Option(
            "--hop-length",
            "--hop_length",
            metavar="SAMPLES",
            help="Distance between frames, in samples. Default: 256.",
            show_default=False,
        ),
    ] = None
    n_mels: Annotated[
        int | None,
        typer.Option(
            "--n-mels", "--n_mels", metavar="NUMBER", help="Number of mel bands. Default: 128.", show_default=False
        ),
    ] = None

    def given(self) -> dict[str, int]:
        """The settings that were given, by the names of `MelConfig`."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class MelReadingOptions:
    """How mel files are read; see `MelReading`."""

    convention: Annotated[
        str,
        typer.Option(
            "--mel-convention",
            metavar="NAME",
            help="Scale of the mels' values, if not GOMIN's: power, amplitude, db, ln-power, ln-amplitude, log10-power "
            "or log10-amplitude, of GOMIN's bands; they are converted.",
        ),
    ] = "gomin"
    stft_norm: Annotated[
        str,
        typer.Option(
            "--stft-norm",
            metavar="window|none",
            help="With --mel-convention: window, if the STFT was divided by the root of the window's energy, as "
            "GOMIN's is; none, if not, as librosa's.",
        ),
    ] = "window"
    transpose: Annotated[
        bool, typer.Option("--transpose", help="Transpose the mels, whose shape is (frames, bands).")
    ] = False
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Accept mels whose values do not look like GOMIN's, and audio far beyond full scale."
        ),
    ] = False

    def build(self) -> MelReading:
        """How mel files are read.

        Raises:
            UsageError: an unknown name; see `MelReading`.
        """
        from gomin_client.mel.scales import MelReading

        if self.stft_norm not in ("window", "none"):
            raise UsageError(f"--stft-norm {self.stft_norm}: expected window or none")
        return MelReading(self.convention, self.stft_norm == "window", self.transpose)
