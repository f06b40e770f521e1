"""Listening reports: what the page shows is what compare measured, and what is heard is what it compared."""

import base64
import hashlib
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from gomin_client.errors import FileError, UsageError
from gomin_client.mel.features import MelConfig, mel_spectrogram
from gomin_client.report import build, pictures
from gomin_client.report.build import PAGE, compare_with_report
from gomin_client.report.page import MEASURES
from gomin_client.report.pictures import difference_levels, mel_levels
from gomin_client.tools.compare import Comparison, Distance, Versions, compare_paths, mean, read_mono
from tests.client.report.conftest import RATE, sweep
from tests.client.report.html_pages import Element, content, parse

FORMS = [Path("report.html"), Path("report")]


def page_of(report: Path) -> Path:
    return report / PAGE if report.is_dir() else report


def values(row: Element) -> list[float]:
    return [float(cell.attributes["data-value"]) for cell in row.find("td", class_="value")]


def measured(comparison: Comparison) -> list[float]:
    assert comparison.distance is not None
    return [float(getattr(comparison.distance, measure.name)) for measure in MEASURES]


@pytest.mark.parametrize("report", FORMS, ids=str)
def test_the_numbers_are_those_of_compare_the_worst_first(folders: Path, report: Path) -> None:
    returned = compare_with_report(report, Path("in"), Path("good"))

    page = parse(page_of(report))
    compared = compare_paths(Path("in"), Path("good"))
    assert returned == compared
    (table,) = page.find("table", id="distances")
    (body,) = table.find("tbody")
    rows = {row.find("th")[0].text: values(row) for row in body.find("tr")}
    assert rows == {comparison.name: measured(comparison) for comparison in compared}
    distances = [row[0] for row in rows.values()]
    assert distances == sorted(distances, reverse=True)
    assert next(iter(rows)) == "b"
    assert [article.find("h3")[0].text for article in page.find("article")] == list(rows)
    links = [link.attributes["href"] for link in body.find("a")]
    assert links == [f"#{article.attributes['id']}" for article in page.find("article")]


def test_means_and_percentiles(folders: Path) -> None:
    compared = compare_with_report(Path("report.html"), Path("in"), Path("good"))

    (table,) = parse(Path("report.html")).find("table", id="summary")
    rows = {
        row.attributes["data-statistic"]: values(row) for row in table.find("tr") if "data-version" in row.attributes
    }
    average = mean([comparison.distance for comparison in compared if comparison.distance])
    columns = np.sort([measured(comparison) for comparison in compared], axis=0)
    assert rows == {
        "mean": [getattr(average, measure.name) for measure in MEASURES],
        "10 %": columns[0].tolist(),
        "median": columns[1].tolist(),
        "90 %": columns[2].tolist(),
    }


def test_several_versions(folders: Path) -> None:
    compared = compare_with_report(Path("report.html"), Path("in"), Path("good"), Path("bad"))

    page = parse(Path("report.html"))
    (table,) = page.find("table", id="distances")
    (body,) = table.find("tbody")
    rows = {(row.find("th")[0].text, row.find("td")[0].text): values(row) for row in body.find("tr")}
    letters = {"good": "B", "bad": "C"}
    assert rows == {(comparison.name, letters[comparison.version]): measured(comparison) for comparison in compared}
    worst = [max(rows[name, letter][0] for letter in "BC") for name in dict.fromkeys(name for name, _ in rows)]
    assert worst == sorted(worst, reverse=True)
    (summary,) = page.find("table", id="summary")
    assert [row.attributes["data-version"] for row in summary.find("tr")[1:]] == ["B"] * 4 + ["C"] * 4
    for article in page.find("article"):
        assert len(article.find("audio")) == len(article.find("input", type="radio")) == 3
        assert len(article.find("img")) == 5


@pytest.mark.parametrize("report", FORMS, ids=str)
def test_what_is_heard_and_seen_is_what_was_compared(folders: Path, report: Path) -> None:
    compare_with_report(report, Path("in"), Path("bad"))

    path = page_of(report)
    config = MelConfig()
    for article in parse(path).find("article"):
        name = article.find("h3")[0].text
        waves = [read_mono(Path(folder, f"{name}.wav"), config) for folder in ("in", "bad")]
        for player, wave in zip(article.find("audio"), waves, strict=True):
            heard, rate = soundfile.read(io.BytesIO(content(player.attributes["src"], path)))
            assert rate == config.sample_rate
            np.testing.assert_allclose(heard, np.clip(wave, -1, 1), rtol=0, atol=2 / 32768)
            assert player.attributes["preload"] == "none"
            assert player.attributes["aria-label"]
        shown = []
        for image in article.find("img"):
            picture = Image.open(io.BytesIO(content(image.attributes["src"], path)))
            assert picture.size == (config.frames(len(waves[0])), config.n_mels)
            assert image.attributes["loading"] == "lazy"
            assert name in image.attributes["alt"]
            shown.append(np.asarray(picture))
        original, other = (mel_spectrogram(wave, config) for wave in waves)
        frames = original.shape[1]
        for picture, levels in zip(
            shown,
            (mel_levels(original, frames), mel_levels(other, frames), difference_levels(original, other, frames)),
            strict=True,
        ):
            np.testing.assert_array_equal(picture, levels)


def test_versions_of_other_lengths_and_beyond_full_scale(tmp_path: Path) -> None:
    wave = sweep(0.5, 300)
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    soundfile.write(tmp_path / "b.wav", 3 * wave[:-600], RATE, subtype="FLOAT")

    compare_with_report(tmp_path / "r.html", tmp_path / "a.wav", tmp_path / "b.wav")

    page = parse(tmp_path / "r.html")
    notes = [note.text for note in page.find("p", class_="note")]
    clipped = int((np.abs(3 * wave[:-600]) > 1).sum())
    assert notes == [
        "600 samples shorter than A",
        f"Exceeds full scale; {clipped} samples are clipped here, not in the distances.",
    ]
    heard, _ = soundfile.read(io.BytesIO(content(page.find("audio")[1].attributes["src"], tmp_path / "r.html")))
    assert np.abs(heard).max() == pytest.approx(1, abs=1e-4)


def test_equal_recordings_have_an_infinite_ratio(folders: Path) -> None:
    compare_with_report(Path("r.html"), Path("in"), Path("in"))

    page = parse(Path("r.html"))
    cells = [
        row.find("td", class_="value")[3] for row in page.find("table", id="distances")[0].find("tbody")[0].find("tr")
    ]
    assert {(cell.text, cell.attributes["data-value"]) for cell in cells} == {("∞", "Infinity")}
    assert {row.find("td")[3].text for row in page.find("table", id="summary")[0].find("tr")[1:]} == {"∞"}


def test_what_could_not_be_compared_is_listed(folders: Path) -> None:
    Path("good/a.wav").unlink()
    Path("in/b.wav").write_text("not audio")

    compared = compare_with_report(Path("r.html"), Path("in"), Path("good"), Path("bad"))

    page = parse(Path("r.html"))
    (problems,) = page.find("section", class_="problems")
    listed = [item.text for item in problems.find("li")]
    assert listed == list(dict.fromkeys(comparison.problem for comparison in compared if comparison.problem))
    assert listed[0] == "in/a.wav: has no counterpart in good"
    assert listed[1].startswith("in/b.wav: cannot be read as audio")
    assert len(listed) == 2
    found = {article.find("h3")[0].text: len(article.find("audio")) for article in page.find("article")}
    assert found == {"a": 2, "sub/c": 3}


def test_nothing_could_be_compared(folders: Path) -> None:
    Path("other").mkdir()
    soundfile.write("other/x.wav", sweep(0.2, 300), RATE)

    compare_with_report(Path("r.html"), Path("in"), Path("other"))

    page = parse(Path("r.html"))
    assert len(page.find("section", class_="problems")[0].find("li")) == 4
    assert not page.find("table")


NAMES = (b"<script>alert(1)&\"'.wav", b"a\xff<b>%2e#?.wav", "\u202eexe\x1b.wav".encode(), "grün 音.wav".encode())


@pytest.mark.parametrize("report", FORMS, ids=str)
def test_file_names_are_text_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (b"<i>in&\"'", b"o\xfeut"):
        os.mkdir(folder)
        for name in NAMES:
            soundfile.write(os.path.join(folder, name), sweep(0.1, 300), RATE, format="WAV")

    compare_with_report(report, Path("<i>in&\"'"), Path(os.fsdecode(b"o\xfeut")), note="<b>seed</b> 7")

    page = parse(page_of(report))
    assert not page.find("b")
    assert [remark.text for remark in page.find("p", class_="remark")] == ["<b>seed</b> 7"]
    assert not page.find("i")
    (script,) = page.find("script")
    names = {article.find("h3")[0].text for article in page.find("article")}
    assert names == {"<script>alert(1)&\"'", r"a\xff<b>%2e#?", r"\u202eexe\x1b", "grün 音"}
    assert [entry.text for entry in page.find("dl", class_="versions")[0].find("dd")] == ["<i>in&\"'", r"o\xfeut"]
    (policy,) = page.find("meta", http_equiv="Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(script.children[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy.attributes["content"]
    addresses = [element.attributes["src"] for tag in ("img", "audio") for element in page.find(tag)]
    assert len(addresses) == 2 + len(NAMES) * 5
    for address in addresses:
        assert content(address, page_of(report))


@pytest.mark.parametrize("report", FORMS, ids=str)
def test_the_page_names_no_other_host(folders: Path, report: Path) -> None:
    compare_with_report(report, Path("in"), Path("good"))

    assert "//" not in re.sub(r"base64,[^\"]*|// [^\n]*", "", page_of(report).read_text())


def test_a_page_is_usable_without_sight_or_mouse(folders: Path) -> None:
    compare_with_report(Path("r.html"), Path("in"), Path("good"), Path("bad"))

    page = parse(Path("r.html"))
    ids = [element.attributes["id"] for tag in ANY for element in page.find(tag) if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    assert page.find("html")[0].attributes["lang"] == "en"
    assert all(image.attributes["alt"] for image in page.find("img"))
    assert all(heading.attributes["scope"] in ("col", "row") for heading in page.find("th"))
    assert all(table.find("caption") or table.attributes["id"] == "summary" for table in page.find("table"))
    for element in (element for tag in ANY for element in page.find(tag)):
        for reference in element.attributes.get("aria-labelledby", "").split():
            assert reference in ids
    for link in page.find("a"):
        assert link.attributes["href"][1:] in ids
    assert {label.attributes["for"] for label in page.find("label") if "for" in label.attributes} <= set(ids)
    assert all(group.find("legend") for group in page.find("fieldset"))


ANY = ("a", "article", "audio", "div", "h2", "h3", "input", "output", "section", "table")


def test_hundreds_of_files_are_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compare_paths", many_recordings(120))

    compared = compare_with_report(tmp_path / "report", tmp_path / "in", tmp_path / "out")

    page = parse(tmp_path / "report" / PAGE)
    assert len(compared) == len(page.find("article")) == 120
    files = {path.relative_to(tmp_path / "report").as_posix() for path in (tmp_path / "report").rglob("*.*")}
    used = {element.attributes["src"] for tag in ("img", "audio") for element in page.find(tag)}
    assert {address for address in used if not address.startswith("data:")} == files - {PAGE}
    assert len(files) == 1 + 120 * 5
    assert (tmp_path / "report" / PAGE).stat().st_size < 1_000_000


def many_recordings(count: int) -> Callable[..., list[Comparison]]:
    """In place of `compare_paths`: many short recordings, without the time that it takes to compare them."""
    distance = Distance(1.0, 1.0, 1.0, 1.0, 1.0, 0)

    def compare(*paths: Path, begin: Callable[[int], None], visit: Callable[[Versions], None]) -> list[Comparison]:
        comparisons = [Comparison(f"{index}", distance) for index in range(count)]
        for comparison in comparisons:
            visit(Versions(comparison.name, paths, (np.zeros(200, np.float32),) * 2, (comparison,)))
        return comparisons

    return compare


def test_too_much_for_one_page(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "MOST_EMBEDDED_BYTES", 50_000)

    with pytest.raises(UsageError, match=r"r\.html: more than 0 MB .* give the name of a folder, for example r/"):
        compare_with_report(Path("r.html"), Path("in"), Path("good"))

    assert not Path("r.html").exists()
    compare_with_report(Path("r"), Path("in"), Path("good"))
    assert Path("r", PAGE).is_file()


class TestTargets:
    def test_a_report_is_replaced(self, folders: Path) -> None:
        compare_with_report(Path("new/report"), Path("in"), Path("good"))
        Path("in/a.wav").unlink()
        Path("good/a.wav").unlink()

        compare_with_report(Path("new/report"), Path("in"), Path("good"))

        assert len(parse(Path("new/report", PAGE)).find("article")) == 2
        assert len(list(Path("new/report/audio").iterdir())) == 4
        assert [path.name for path in Path("new").iterdir()] == ["report"]

    def test_nothing_else_is(self, folders: Path) -> None:
        Path("mine").mkdir()
        Path("mine/index.html").write_text("<html>")
        Path("file").touch()
        Path("folder.html").mkdir()
        for name, problem in (
            ("mine", "mine: is a folder with other files; choose a new one"),
            ("file", r"file: is a file; expected a file name that ends with \.html, or a folder"),
            ("r.pdf", r"r\.pdf: expected a file name that ends with \.html, or a folder"),
            ("folder.html", r"folder\.html: is a folder; expected the name of a file"),
            ("good/report", "good/report: is in good, whose recordings are compared"),
            ("in", "in: is in in, whose recordings are compared"),
        ):
            with pytest.raises(UsageError, match=problem):
                compare_with_report(Path(name), Path("in"), Path("good"))
        assert Path("mine/index.html").read_text() == "<html>"
        assert sorted(path.name for path in folders.iterdir()) == ["bad", "file", "folder.html", "good", "in", "mine"]

    @pytest.mark.parametrize("report", FORMS, ids=str)
    def test_a_failure_leaves_the_old_report_and_nothing_else(
        self, folders: Path, monkeypatch: pytest.MonkeyPatch, report: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        compare_with_report(report, Path("in"), Path("good"))
        before = page_of(report).read_text()
        temporary = tmp_path_factory.mktemp("temporary")
        monkeypatch.setattr("tempfile.tempdir", str(temporary))

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(pictures, "save", full)
        with pytest.raises(FileError, match="No space left on device"):
            compare_with_report(report, Path("in"), Path("bad"))

        assert page_of(report).read_text() == before
        assert sorted(path.name for path in folders.iterdir()) == ["bad", "good", "in", report.name]
        assert not list(temporary.iterdir())

    @pytest.mark.parametrize(
        ("module", "package"), [("jinja2", "Jinja2"), ("matplotlib", "matplotlib"), ("PIL", "Pillow")]
    )
    def test_a_missing_package(self, folders: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
        monkeypatch.setitem(sys.modules, module, None)

        with pytest.raises(UsageError, match=rf"^reports need {package}: pip install 'gomin-triton\[plot\]'$"):
            compare_with_report(Path("r.html"), Path("in"), Path("good"))

        assert not Path("r.html").exists()
