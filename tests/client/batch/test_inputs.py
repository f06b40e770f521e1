"""The input files of each kind of argument."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gomin_client.batch.inputs import find_sources, left_out_files, matched_part
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

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
    def test_a_list_in_another_encoding(self, tree: Path, encoding: str) -> None:
        """PowerShell writes UTF-16; `ls` and `find` write the bytes of a name as they are."""
        name = "é.wav".encode(encoding) if encoding == "latin-1" else "é.wav".encode()
        Path(os.fsdecode(name)).touch()
        Path("list.txt").write_bytes(b"in/b.wav\n" + name + b"\n")
        if encoding == "utf-16":
            Path("list.txt").write_text("in/b.wav\né.wav\n", encoding=encoding)

        assert self.found("list.txt") == [("in/b.wav", "in"), (os.fsdecode(name), ".")]
        assert os.path.exists(self.found("list.txt")[1][0])

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

    def test_a_literal_bracket_in_a_pattern_is_explained(self, tree: Path) -> None:
        Path("album [1]").mkdir()
        Path("album [1]/a.wav").touch()
        with pytest.raises(UsageError, match=r"a literal \[ is written \[\[\], as in 'album \[\[\]1\]/\*\.wav'"):
            self.found("album [1]/*.wav")
        assert self.found("album [[]1]/*.wav") == [("album [1]/a.wav", "album [1]")]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["in/sub/deep"], "in/sub/deep: contains no mel files; 1 file left out: .flac"),
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


class TestLinks:
    """Each real file once, in both forms: a folder, and a pattern."""

    @pytest.fixture(autouse=True)
    def tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("in/spk/a.wav", "in/spk/b.wav", "elsewhere/deep/c.wav"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    def found(self, argument: str) -> list[str]:
        return [str(source.path) for source in find_sources([argument], ("audio",)).sources]

    @pytest.mark.parametrize("argument", ["in", "in/**/*.wav", "in/**"])
    def test_links_to_folders_above(self, argument: str) -> None:
        Path("in/latest").symlink_to(".")
        Path("in/spk/up").symlink_to("..")
        Path("in/again").symlink_to("../in")
        assert self.found(argument) == ["in/spk/a.wav", "in/spk/b.wav"]

    @pytest.mark.parametrize("argument", ["in", "in/**/*.wav"])
    def test_a_linked_folder_is_followed_once(self, argument: str) -> None:
        Path("in/more").symlink_to("../elsewhere")
        Path("in/and_more").symlink_to("../elsewhere/deep")
        once = {"in/spk/a.wav", "in/spk/b.wav"}
        (linked,) = set(self.found(argument)) - once
        assert linked in ("in/more/deep/c.wav", "in/and_more/c.wav")

    @pytest.mark.parametrize("argument", ["in", "in/**/*.wav", "in/*/*.wav"])
    def test_a_path_without_links_is_preferred(self, argument: str) -> None:
        Path("in/a_link").symlink_to("spk")
        Path("in/spk/0.wav").symlink_to("a.wav")
        assert self.found(argument) == ["in/spk/a.wav", "in/spk/b.wav"]

    @pytest.mark.parametrize("argument", ["in", "in/**"])
    def test_links_to_files_elsewhere_are_files(self, argument: str) -> None:
        Path("in/c.wav").symlink_to("../elsewhere/deep/c.wav")
        assert sorted(self.found(argument)) == ["in/c.wav", "in/spk/a.wav", "in/spk/b.wav"]

    def test_a_file_that_is_named_is_not_found_again(self) -> None:
        Path("in/link.wav").symlink_to("spk/a.wav")
        found = find_sources(["in/link.wav", "in"], ("audio",)).sources
        assert [str(source.path) for source in found] == ["in/link.wav", "in/spk/b.wav"]

    @pytest.mark.parametrize("argument", ["in", "in/**"])
    def test_a_link_to_itself_ends(self, argument: str) -> None:
        Path("in/loop").symlink_to("loop")
        found = find_sources([argument], ("audio",))
        assert len(found.sources) == 2
        assert found.problems == ["in/loop: is a link to a file or folder that does not exist"]


class TestLeftOut:
    @pytest.fixture(autouse=True)
    def tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("in/a.wav", "in/b.PDF", "in/sub/notes.txt", "in/LICENSE", "in/.DS_Store", "in/.git/x.wav"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    @pytest.mark.parametrize("argument", ["in", "in/**", "in/**/*", "in/**/*.*"])
    def test_what_is_not_read_is_counted_and_hidden_files_are_not(self, argument: str) -> None:
        found = find_sources([argument], ("audio",))
        assert [str(source.path) for source in found.sources] == ["in/a.wav"]
        expected = {"in/b.PDF", "in/sub/notes.txt"} | ({"in/LICENSE"} if argument != "in/**/*.*" else set())
        assert {str(path) for path in found.left_out} == expected

    def test_a_number_and_extensions(self) -> None:
        found = find_sources(["in"], ("audio",))
        assert left_out_files(found.left_out) == "3 files left out: .pdf, .txt, no extension"

    def test_of_a_folder_without_files_to_read(self) -> None:
        with pytest.raises(UsageError, match=r"in/sub: contains no audio files; 1 file left out: \.txt"):
            find_sources(["in/sub"], ("audio",))

    @pytest.mark.parametrize("argument", ["in", "in/**/*.wav"])
    def test_pipes_are_not_opened(self, argument: str) -> None:
        os.mkfifo("in/pipe.wav")
        found = find_sources([argument], ("audio",))
        assert [str(source.path) for source in found.sources] == ["in/a.wav"]
        assert Path("in/pipe.wav") in found.left_out

    @pytest.mark.parametrize("argument", ["in", "in/**/*.wav"])
    def test_a_folder_that_cannot_be_searched_is_reported(self, argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Root may search every folder: the refusal is made here."""
        scandir = os.scandir

        def refuse(path: str) -> Any:
            if path == "in/sub":
                raise PermissionError(errno.EACCES, "Permission denied")
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        found = find_sources([argument], ("audio",))
        assert [str(source.path) for source in found.sources] == ["in/a.wav"]
        assert found.problems == ["in/sub: cannot be searched: Permission denied"]
