"""The input files that arguments stand for."""

from pathlib import Path

import pytest

from gomin_client.batch.inputs import find_sources, matched_part
from gomin_client.errors import UsageError


@pytest.mark.parametrize(
    ("name", "pattern", "matched"),
    [
        ("input12.wav", "input*.wav", "12"),
        ("input12.wav", "*.wav", "input12"),
        ("input12.wav", "*", "input12"),
        ("a_x.wav", "*_x.wav", "a"),
        ("a_b_c.wav", "*_*.wav", None),
        ("a.wav", "[ab]*.wav", None),
        ("a.wav", "a.wav", None),
        ("rec.wav", "rec*.wav", ""),
    ],
)
def test_what_a_star_stands_for(name: str, pattern: str, matched: str | None) -> None:
    assert matched_part(name, pattern) == matched


class TestFindSources:
    @pytest.fixture
    def tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        for name in (
            "in/b.wav",
            "in/a.mp3",
            "in/sub/deep/c.flac",
            "in/sub/m.pt",
            "in/.hidden.wav",
            "in/notes.md",
            "x.wav",
        ):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()
        return tmp_path

    def found(self, *arguments: str, kinds: tuple[str, ...] = ("audio",)) -> list[tuple[str, str]]:
        return [(str(source.path), str(source.folder)) for source in find_sources(arguments, kinds).sources]

    def test_a_directory_with_its_subfolders(self, tree: Path) -> None:
        expected = [("in/a.mp3", "."), ("in/b.wav", "."), ("in/sub/deep/c.flac", "sub/deep")]
        assert self.found("in") == self.found("in/") == expected
        assert self.found("in", kinds=("mel",)) == [("in/sub/m.pt", "sub")]

    def test_subfolders_come_in_the_order_of_their_names(self, tree: Path) -> None:
        names = [f"order/{number:02}/x.wav" for number in range(16)]
        for name in names[::2] + names[::-2]:
            Path(name).parent.mkdir(parents=True)
            Path(name).touch()
        assert [name for name, _ in self.found("order")] == names

    def test_patterns(self, tree: Path) -> None:
        assert self.found("in/**/*") == [("in/a.mp3", "."), ("in/b.wav", "."), ("in/sub/deep/c.flac", "sub/deep")]
        assert self.found("in/*.wav") == [("in/b.wav", ".")]
        assert self.found("in/*/*/*.flac") == [("in/sub/deep/c.flac", "sub/deep")]
        assert self.found("in/[ab].*") == [("in/a.mp3", "."), ("in/b.wav", ".")]
        assert self.found("*.wav") == [("x.wav", ".")]

    def test_a_file_with_a_wildcard_in_its_name_is_a_file(self, tree: Path) -> None:
        Path("a[1].wav").touch()
        assert self.found("a[1].wav") == [("a[1].wav", ".")]

    def test_files_named_one_by_one_keep_folders_below_the_common_one(self, tree: Path) -> None:
        assert self.found("in/b.wav", "in/sub/deep/c.flac") == [("in/b.wav", "."), ("in/sub/deep/c.flac", "sub/deep")]
        assert self.found("in/b.wav") == [("in/b.wav", ".")]
        assert self.found("in/b.wav", str(tree / "x.wav"))[1] == (str(tree / "x.wav"), ".")

    def test_a_list_of_files(self, tree: Path) -> None:
        Path("list.txt").write_text("\ufeffin/b.wav\n\n  x.wav  \n")
        assert self.found("list.txt") == [("in/b.wav", "in"), ("x.wav", ".")]

    def test_a_file_is_made_once(self, tree: Path) -> None:
        assert self.found("x.wav", "./x.wav", "in/../x.wav", "*.wav") == [("x.wav", ".")]

    def test_what_is_no_file_is_found_too(self, tree: Path) -> None:
        """It is reported, with the others done, not passed over."""
        Path("in/dangling.wav").symlink_to("nowhere")
        Path("in/folder.wav").mkdir()
        names = [name for name, _ in self.found("in")]
        assert "in/dangling.wav" in names
        assert "in/folder.wav" in names
        assert self.found("in/folder.wav") == [("in/folder.wav", ".")]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["in/sub/deep"], "in/sub/deep: contains no mel files"),
            (["nothing/*.wav"], "nothing/*.wav: matches no mel files"),
            (["none.txt"], "none.txt: no such list of files"),
            (["a\0b.wav"], r"path 'a\x00b.wav': expected a file"),
            ([""], "path '': expected a file"),
            (["slash.txt"], "path '/': is not a file"),
            (["-", "x.wav"], "standard input (-) must be the only input"),
        ],
    )
    def test_nothing_found_is_an_error(self, tree: Path, arguments: list[str], words: str) -> None:
        Path("slash.txt").write_text("/\n")
        with pytest.raises(UsageError) as error:
            find_sources(arguments, ("mel",))
        assert words in str(error.value)
