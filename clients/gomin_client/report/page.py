"""The page of a listening report: the template's data, and its rendering."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path

import numpy as np

from gomin_client.mel.features import RANGE_DB, MelConfig
from gomin_client.report import pictures
from gomin_client.tools.compare import Comparison, Distance, by_version, mean

GENERATOR = "gomin-client compare"  # by which a report is recognised as one
PERCENTILES = (10, 50, 90)
_FILES = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Measure:
    """A column of the tables.

    Attributes:
        name: the attribute of `Distance`.
        title: the heading.
        unit: in the heading; may be empty.
        better: which values are closer to the reference: "lower", "higher" or "".
        form: how a value is written.
    """

    name: str
    title: str
    unit: str
    better: str
    form: str


MEASURES = (
    Measure("log_mel_l1_db", "mel L1", "dB", "lower", ".2f"),
    Measure("spectral_convergence", "spec. conv.", "", "lower", ".3f"),
    Measure("log_magnitude_l1", "log mag. L1", "", "lower", ".3f"),
    Measure("snr_db", "SNR", "dB", "higher", ".1f"),
    Measure("seconds", "compared", "s", "", ".2f"),
)


@dataclass(frozen=True)
class Version:
    """A reference or what is compared with it.

    Attributes:
        letter: A for the reference, B and so on for the others.
        path: the file or folder, as it was given.
    """

    letter: str
    path: str


@dataclass(frozen=True)
class Sound:
    """One version of a recording.

    Attributes:
        version: which one.
        path: its file.
        audio: FLAC file in the report's folder.
        picture: PNG file of its mel spectrogram.
        difference: PNG file of the difference from the reference; empty for the reference.
        distance: from the reference; None for the reference.
        seconds: its duration.
        clipped: samples beyond full scale, which the audio file does not have.
    """

    version: Version
    path: str
    audio: str
    picture: str
    difference: str
    distance: Distance | None
    seconds: float
    clipped: int


@dataclass(frozen=True)
class Entry:
    """A recording.

    Attributes:
        key: its name in links.
        name: its name for people.
        seconds: the length of the time axis.
        sounds: its versions, the reference first.
    """

    key: str
    name: str
    seconds: float
    sounds: tuple[Sound, ...]

    @property
    def worst(self) -> float:
        """The largest mel distance of its versions, in dB."""
        return max(sound.distance.log_mel_l1_db for sound in self.sounds if sound.distance is not None)


@dataclass(frozen=True)
class Statistic:
    """A row of the table of means and percentiles."""

    version: Version
    name: str
    values: tuple[float, ...]


def text(value: object) -> str:
    """Text that shows what it is: bytes that are not UTF-8 and characters that are invisible are escaped."""
    readable = str(value).encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in readable)


def statistics(versions: Sequence[Version], comparisons: Sequence[Comparison]) -> list[Statistic]:
    """Mean and percentiles of each version and measure. A percentile is the value of a recording.

    Args:
        versions: all of them, the reference first.
        comparisons: of all recordings.
    """
    rows = []
    found = by_version(comparisons)
    for version in versions[1:]:
        distances = found.get(version.path if len(versions) > 2 else "", [])
        if not distances:
            continue
        average = mean(distances)
        rows.append(Statistic(version, "mean", tuple(getattr(average, measure.name) for measure in MEASURES)))
        columns = np.array([[getattr(distance, measure.name) for measure in MEASURES] for distance in distances])
        for percent in PERCENTILES:
            # no interpolation: two recordings may have an infinite signal-to-noise ratio
            values = np.percentile(columns, percent, axis=0, method="inverted_cdf").tolist()
            rows.append(Statistic(version, "median" if percent == 50 else f"{percent} %", tuple(values)))
    return rows


def render(
    versions: Sequence[Version],
    entries: Sequence[Entry],
    comparisons: Sequence[Comparison],
    config: MelConfig,
    *,
    note: str = "",
    address: Callable[[str], str],
) -> Iterator[str]:
    """The page, in parts.

    Args:
        versions: all of them, the reference first.
        entries: all recordings that could be compared.
        comparisons: of all recordings.
        config: the settings of the mels.
        note: text at the head of the page.
        address: the URL of a file in the report's folder.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FILES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "exact": _exact, "text": text}
    style, script = ((_FILES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    template = environment.get_template("page.html")
    yield from template.generate(
        generator=GENERATOR,
        program_version=metadata.version("gomin-triton"),
        made=datetime.now().astimezone(),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        versions=versions,
        entries=sorted(entries, key=lambda entry: entry.worst, reverse=True),
        measures=MEASURES,
        statistics=statistics(versions, comparisons),
        note=note,
        problems=list(dict.fromkeys(comparison.problem for comparison in comparisons if comparison.problem)),
        config=config,
        address=address,
        data=data_url,
        pictures=pictures,
        range_db=RANGE_DB,
    )


def data_url(content: bytes, kind: str) -> str:
    """A file as a part of the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _hash(content: str) -> str:
    """By which the page's own policy recognises its script and its style; any other is not run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _number(value: float, measure: Measure) -> str:
    """A value as it is shown."""
    if np.isnan(value):
        return "–"
    return f"{value:{measure.form}}".replace("inf", "∞").replace("-", "−")


def _exact(value: float) -> str:
    """A value as JavaScript reads it, with all its digits."""
    return str(float(value)).replace("inf", "Infinity").replace("nan", "NaN")
