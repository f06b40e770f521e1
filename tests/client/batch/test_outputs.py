"""From inputs to jobs: all of GOMIN's forms, without a model."""

import os
import string
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomin_client.batch.inputs import Source, find_sources
from gomin_client.batch.outputs import FileJob, Naming, check_extra_outputs, find_outputs, plan_batch, plan_jobs
from gomin_client.errors import UsageError

WAV = Naming(".wav", "gan", "reconstruct")
ANY = Naming(".wav", "gan")


def sources(*names: str) -> list[Source]:
    return [Source(Path(name), PurePath(name).parent) for name in names]


def targets(names: list[str], outputs: list[str], naming: Naming = WAV) -> list[str]:
    return [str(job.target) for job in plan_jobs(sources(*names), outputs, naming)]


class TestPlan:
    @pytest.mark.parametrize(
        ("names", "outputs", "expected"),
        [
            (["in/a.flac", "b.wav"], [], ["in/a_gan.wav", "b_gan.wav"]),
            (["a.wav"], ["out/x.flac"], ["out/x.flac"]),
            (["a.wav", "b.wav"], ["x.ogg", "y.mp3"], ["x.ogg", "y.mp3"]),
            (["p/a.flac", "q/b.ogg"], ["out/"], ["out/p/a.wav", "out/q/b.wav"]),
            (["p/a.flac"], ["out"], ["out/p/a.wav"]),
            (["p/a.flac"], ["v1.2/"], ["v1.2/p/a.wav"]),
            (["p/a.flac"], ["out/**/*.flac"], ["out/p/a.flac"]),
            (["p/a.flac"], ["out/**"], ["out/p/a.wav"]),
            (["p/a.flac"], ["out/*.flac"], ["out/a.flac"]),
            (["p/a.flac"], ["out/*"], ["out/a.wav"]),
            (["p/a.flac"], ["*.mp3"], ["a.mp3"]),
            (["p/a.flac"], ["/abs/*.mp3"], ["/abs/a.mp3"]),
            (["p/a.flac"], ["out/rec_*.wav"], ["out/rec_a.wav"]),
            (["p/a.flac"], ["out/**/rec_*_x.*"], ["out/p/rec_a_x.wav"]),
            (["p/a.wav", "p/a.mp3"], ["out/"], ["out/p/a.wav", "out/p/a.mp3.wav"]),
            (["p/a.mp3", "p/a.wav"], ["out/"], ["out/p/a.mp3.wav", "out/p/a.wav"]),
            (["p/a.mp3", "p/a.flac"], ["out/"], ["out/p/a.wav", "out/p/a.flac.wav"]),
            (["p/a.wav", "q/a.wav"], ["out/*.wav"], ["out/a.wav", "out/a.wav.wav"]),
            (["a.wav"], ["*.wav"], ["a.wav.wav"]),
            (["a.wav", "a_gan.wav"], [], ["a_gan.wav.wav", "a_gan_gan.wav"]),
            (["-"], [], ["-"]),
            (["-"], ["x.wav"], ["x.wav"]),
            (["-"], ["out/"], ["out/stdin.wav"]),
            (["a.wav"], ["-"], ["-"]),
        ],
    )
    def test_outputs(self, names: list[str], outputs: list[str], expected: list[str]) -> None:
        assert targets(names, outputs) == expected

    @pytest.mark.parametrize(
        ("name", "output", "task"),
        [
            ("a.wav", "b.flac", "reconstruct"),
            ("a.mp3", "b.pt", "analyze"),
            ("A.WAV", "B.NPZ", "analyze"),
            ("a.pt", "b.wav", "synthesize"),
            ("a.npy", "b.mp3", "synthesize"),
            ("-", "b.npz", "analyze"),
        ],
    )
    def test_extensions_choose_the_task(self, name: str, output: str, task: str) -> None:
        assert plan_jobs(sources(name), [output], ANY) == [FileJob(Path(name), Path(output), task)]

    def test_a_slash_in_a_models_name_is_not_a_folder(self) -> None:
        assert targets(["in/a.wav"], [], Naming(".wav", "team/gan", "reconstruct")) == ["in/a_team_gan.wav"]

    def test_another_kind_of_file_needs_no_label(self) -> None:
        assert targets(["in/a.wav"], [], Naming(".npz", "", "analyze")) == ["in/a.npz"]
        assert targets(["in/a.npz"], [], Naming(".wav", "gan", "synthesize")) == ["in/a.wav"]

    @pytest.mark.parametrize(
        ("names", "outputs", "naming", "words"),
        [
            ([], [], WAV, "no input files"),
            (["a.wav", "b.wav"], ["x.wav"], WAV, "there are 2 inputs and 1 outputs"),
            (["a.wav"], ["x.wav", "y.wav"], WAV, "there are 1 inputs and 2 outputs"),
            (["a.wav"], ["x.aiff"], WAV, "x.aiff: cannot write .aiff files; known are .wav"),
            (["a.xyz"], ["x.wav"], WAV, "a.xyz: cannot read .xyz files; known are .wav"),
            (["a"], ["x.wav"], WAV, "a: cannot read files without extension"),
            (["a"], ["x.wav"], Naming(".wav", "", "synthesize"), "files without extension; known are .npz, .npy, .pt"),
            (["a.wav"], ["x.xyz"], Naming(".npz", "", "analyze"), "cannot write .xyz files; known are .npz, .npy, .pt"),
            (["a.pt"], ["x.npz"], ANY, "both are mel files"),
            (["a.pt"], ["x.wav"], WAV, "use the command synthesize, which makes audio from mel"),
            (["a.wav"], ["x.npz"], WAV, "use the command analyze, which makes mel from audio"),
            (["a.wav", "b.wav"], ["x.wav", "x.wav"], WAV, "a.wav and b.wav would both be written to x.wav"),
            (["a.wav", "b.wav"], ["x.wav", "./p/../x.wav"], WAV, "would both be written to"),
            (["a.wav"], ["a.wav"], WAV, "a.wav would be written to a.wav, which is an input"),
            (["a.wav", "b.wav"], ["-"], WAV, "there are 2 inputs and 1 outputs"),
            (["a.wav"], ["out/*/x.wav"], WAV, "expected a pattern such as"),
            (["a.wav"], ["out/*_*.wav"], WAV, "expected a pattern such as"),
            (["a.wav"], ["out/**/x.wav"], WAV, "expected a pattern such as"),
        ],
    )
    def test_errors_come_before_any_work(
        self, names: list[str], outputs: list[str], naming: Naming, words: str
    ) -> None:
        with pytest.raises(UsageError) as error:
            plan_jobs(sources(*names), outputs, naming)
        assert words in str(error.value)

    def test_a_command_can_be_repeated(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Outputs of the first run are not inputs of the second."""
        monkeypatch.chdir(tmp_path)
        Path("in/sub").mkdir(parents=True)
        for name in ("in/a.wav", "in/a_gan.wav", "in/out/a.wav", "in/sub/b.flac"):
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).touch()

        beside = plan_jobs(find_sources(["in"], ("audio",)).sources, [], WAV)
        below = plan_jobs(find_sources(["in"], ("audio",)).sources, ["in/out/"], WAV)
        itself = plan_jobs(find_sources(["in"], ("audio",)).sources, ["in/"], Naming(".flac", "gan"))

        assert [str(job.source) for job in beside] == ["in/a.wav", "in/out/a.wav", "in/sub/b.flac"]
        assert [str(job.source) for job in below] == ["in/a.wav", "in/a_gan.wav", "in/sub/b.flac"]
        assert len(itself) == 4

    def test_a_link_to_a_shallow_folder_is_searched(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("in/a/b").mkdir(parents=True)
        Path("in/a/b/c").symlink_to("/", target_is_directory=True)

        (job,) = plan_jobs([Source(Path("in/a/b/c/x.wav"), PurePath("a/b/c"), searched=True)], ["out/"], WAV)

        assert job.target == Path("out/a/b/c/x.wav")

    def test_a_link_to_the_inputs_folder_overwrites_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in/a.wav").touch()
        (tmp_path / "link").symlink_to("in")

        (job,) = plan_jobs(find_sources([str(tmp_path / "in")], ("audio",)).sources, [f"{tmp_path}/link/"], WAV)

        assert job.target == tmp_path / "link/a.wav.wav"

    def test_one_more_file_overwrites_nothing(self) -> None:
        jobs = plan_jobs(sources("a.wav"), ["b.wav"], WAV)
        check_extra_outputs([Path("p.png")], jobs)
        with pytest.raises(UsageError, match="is an input or an output"):
            check_extra_outputs([Path("p.png"), Path("./b.wav")], jobs)


NAMES = st.text(string.ascii_lowercase + "0123456789 _", min_size=1, max_size=5).filter(lambda text: text.strip())
FILES = st.builds(
    lambda folders, name, extension: "/".join([*folders, f"{name}{extension}"]),
    st.lists(NAMES, max_size=2),
    NAMES,
    st.sampled_from([".wav", ".mp3", ".flac"]),
)
OUTPUTS = st.sampled_from(["out/", "out/**/*.flac", "out/*.wav", "out/rec_*.ogg", "*.wav", "**/*.wav"])


@given(names=st.lists(FILES, min_size=1, max_size=12, unique=True), output=OUTPUTS)
def test_nothing_is_ever_overwritten(names: list[str], output: str) -> None:
    """Every input gets a separate output, and no output is an input."""
    made = [os.path.normpath(target) for target in targets(names, [output])]

    assert len(set(made)) == len(names)
    assert not set(made) & {os.path.normpath(name) for name in names}


@given(names=st.lists(FILES, min_size=1, max_size=12, unique=True))
def test_subfolders_are_kept_or_dropped(names: list[str]) -> None:
    for name, target in zip(names, targets(names, ["out/**/*.ogg"]), strict=True):
        assert PurePath(target).parent == PurePath("out") / PurePath(name).parent
        assert PurePath(target).name.startswith(PurePath(name).stem)
    assert all(PurePath(target).parent == PurePath("out") for target in targets(names, ["out/*.ogg"]))


@given(names=st.lists(FILES, min_size=2, max_size=12, unique=True))
def test_a_name_depends_on_no_file_that_it_does_not_collide_with(names: list[str]) -> None:
    together = targets(names, ["out/**/*.wav"])
    for name, target in zip(names, together, strict=True):
        alone = targets([name], ["out/**/*.wav"])[0]
        assert target == alone or alone in together


def test_find_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("v1.2").mkdir()
    Path("outs.txt").write_text("a.wav\nb.wav\n")
    assert find_outputs(["v1.2"]) == ["v1.2/"]
    assert find_outputs(["outs.txt"]) == ["a.wav", "b.wav"]
    with pytest.raises(UsageError, match="expected a file, a folder or a pattern"):
        find_outputs([""])


@pytest.mark.parametrize("output", ["fifo.wav", "fifo", "link.wav", "/dev/null", "/dev/stdout", "/dev/fd/63"])
def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo.wav")
    os.mkfifo("fifo")
    Path("link.wav").symlink_to("/dev/null")

    with pytest.raises(UsageError, match="is not a file; write to standard output, -, and redirect that"):
        find_outputs([output])
    assert find_outputs(["/dev/shm"]) == ["/dev/shm/"]


@pytest.mark.parametrize("name", ["/dev/stdin", "/dev/fd/63"])
def test_a_stream_that_is_named_as_a_file(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: is not a file; pass a pipe as standard input, -"):
        targets([name], ["out/"])


class TestBatchPlan:
    @pytest.fixture(autouse=True)
    def tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("in").mkdir()
        for name in ("a.wav", "a.npz", "b.pdf"):
            Path("in", name).touch()

    def test_results_of_an_earlier_run_are_not_left_out(self) -> None:
        plan = plan_batch(["in"], [], ("audio",), Naming(".npz", "", "analyze"))

        assert plan.jobs == [FileJob(Path("in/a.wav"), Path("in/a.npz"), "analyze")]
        assert plan.left_out == [Path("in/b.pdf")]

    def test_strict(self) -> None:
        naming = Naming(".npz", "", "analyze")
        with pytest.raises(UsageError, match=r"--strict: 1 file left out: \.pdf \(in/b\.pdf …\)"):
            plan_batch(["in"], [], ("audio",), naming).require_all()
        Path("in/b.pdf").unlink()
        plan_batch(["in"], [], ("audio",), naming).require_all()
