"""Real servers that start late, are killed, come back, or never start."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from gomin_client import Connection, Vocoder
from gomin_client.errors import ContractError, DeadlineError, UsageError
from gomin_client.transports.registry import connect
from tests.gated import ALL, Gate
from tests.support import EXAMPLES, RunningServer, assert_fails, free_ports, run, serving

pytestmark = [pytest.mark.server, pytest.mark.slow]

FILES, MELS = 40, 10
SEED = 5


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings, and one with mels for the small diffusion model."""
    home = tmp_path_factory.mktemp("inputs")
    (home / "audio").mkdir()
    (home / "mels").mkdir()
    wave, rate = soundfile.read(EXAMPLES[0], dtype="float32")
    for index in range(FILES):
        start = index * 250
        soundfile.write(home / "audio" / f"{index:02}.wav", wave[start : start + 6 * rate // 5], rate, subtype="FLOAT")
    for index in range(MELS):
        np.save(home / "mels" / f"{index}.npy", np.full((32, 10), index / MELS, np.float32))
    return home


@pytest.fixture(scope="module")
def gan_alone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the GAN alone: a server of it starts in half the time."""
    home = tmp_path_factory.mktemp("gan")
    shutil.copytree(repository / "gomin_gan", home / "gomin_gan")
    return home


@pytest.fixture(scope="module")
def both_vocoders(repository: Path, gan_alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GAN and the diffusion model, without front ends and ensembles."""
    home = Path(shutil.copytree(gan_alone, tmp_path_factory.mktemp("both"), dirs_exist_ok=True))
    for model in ("gomin_denoiser", "gomin_diffusion"):
        shutil.copytree(repository / model, home / model)
    return home


@dataclass
class Client:
    """A gomin-client that makes a folder of files, and may begin as many of them as its gate allows."""

    process: subprocess.Popen[str]
    gate: Gate
    out: Path
    log: Path

    @property
    def errors(self) -> str:
        return self.log.read_text()

    def wait(self) -> str:
        """What it prints until its end."""
        output, _ = self.process.communicate(timeout=300)
        return output


@contextmanager
def reconstructing(inputs: Path, out: Path, *options: str, files: int = ALL) -> Iterator[Client]:
    # two windows a file: one that is lost is sent again, not the file
    with _running("reconstruct", inputs / "audio", out, "--window", "90", *options, files=files) as client:
        yield client


@contextmanager
def denoising(inputs: Path, out: Path, *options: str, files: int = ALL) -> Iterator[Client]:
    chain = ("-m", "diffusion", "--seed", str(SEED))
    with _running("synthesize", inputs / "mels", out, *chain, *options, files=files) as client:
        yield client


@contextmanager
def _running(command: str, given: Path, out: Path, *options: str, files: int) -> Iterator[Client]:
    gate, log = Gate(out.with_name(f"{out.name}.gate"), files), out.with_name(f"{out.name}.log")
    arguments = [*gate.client, command, given, "-o", out, "--subtype", "float", *options]
    with log.open("w") as errors:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield Client(process, gate, out, log)
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def wait_for_files(folder: Path, count: int) -> None:
    wait_for(lambda: len(list(folder.glob("*.wav"))) >= count, f"{folder} does not fill")


def audio_of(folder: Path) -> dict[str, NDArray[np.float32]]:
    return {path.name: soundfile.read(path, dtype="float32")[0] for path in sorted(folder.iterdir())}


def assert_undisturbed(folder: Path, reference: Path) -> None:
    """Sample by sample; requests that meet in one batch are rounded otherwise than one by one, in the last bits."""
    expected = audio_of(reference)
    made = audio_of(folder)
    assert made.keys() == expected.keys()
    for name, wave in expected.items():
        np.testing.assert_allclose(made[name], wave, rtol=0, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(server: RunningServer, inputs: Path) -> Path:
    """What the batches make when nothing happens."""
    with reconstructing(inputs, inputs / "gan", "--url", server.grpc) as first:
        assert first.process.wait(timeout=300) == 0
    with denoising(inputs, inputs / "diffusion", "--url", server.grpc) as second:
        assert second.process.wait(timeout=300) == 0
    return inputs


def test_killed_and_restarted_in_the_middle_of_a_batch(both_vocoders: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Three clients at once, over gRPC and HTTP, GAN and diffusion; started before the server is, too."""
    ports = free_ports(3)
    http, grpc = f"http://127.0.0.1:{ports[0]}", f"grpc://127.0.0.1:{ports[1]}"
    patient = ("--wait", "600", "--retry-for", "600")
    with ExitStack() as stack:
        clients = [
            stack.enter_context(reconstructing(undisturbed, tmp_path / "a", "--url", grpc, *patient, files=4)),
            stack.enter_context(reconstructing(undisturbed, tmp_path / "b", "--url", http, *patient, files=4)),
            stack.enter_context(denoising(undisturbed, tmp_path / "c", "--url", grpc, *patient, files=4)),
        ]
        first = stack.enter_context(serving(both_vocoders, tmp_path / "log1", ports=ports))
        for client in clients:
            wait_for_files(client.out, 1)
        first.kill()
        for client in clients:
            client.gate.allow()
        for client in clients:
            wait_for(lambda client=client: "trying again for 600 s" in client.errors, f"{client.out}: nothing is lost")
        stack.enter_context(serving(both_vocoders, tmp_path / "log2", ports=ports))
        for client in clients:
            output = client.wait()
            assert client.process.returncode == 0, client.errors
            assert " 0 failed" in output, client.out
            assert "answers after" in client.errors
            assert "Traceback" not in client.errors
    assert_undisturbed(tmp_path / "a", undisturbed / "gan")
    assert_undisturbed(tmp_path / "b", undisturbed / "gan")
    assert_undisturbed(tmp_path / "c", undisturbed / "diffusion")


def allow_until_a_request(client: Client, vocoder: Vocoder, most: int) -> None:
    """Let files be begun, one by one, until the server of a vocoder has counted a request; gRPC balances."""
    for files in range(1, most):
        client.gate.allow(files)
        wait_for_files(client.out, files)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            if (counts := vocoder.statistics()) is not None and counts.requests:
                return
            time.sleep(0.05)
    pytest.fail("gRPC did not balance")


def test_of_two_servers_one_dies(server: RunningServer, gan_alone: Path, undisturbed: Path, tmp_path: Path) -> None:
    urls = ["--url", server.grpc, "--url"]
    with (
        serving(gan_alone, tmp_path / "log") as other,
        Vocoder(other.grpc) as vocoder,
        reconstructing(undisturbed, tmp_path / "out", *urls, other.grpc, files=0) as client,
    ):
        allow_until_a_request(client, vocoder, FILES - 10)
        client.gate.allow(FILES - 10)
        other.kill()
        client.gate.allow()
        output = client.wait()
    assert client.process.returncode == 0, client.errors
    assert f"{FILES} done, 0 failed" in output
    assert_undisturbed(tmp_path / "out", undisturbed / "gan")


def test_a_server_that_never_comes(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES[0], tmp_path / "a.flac")
    (port,) = free_ports(1)
    for url in (f"grpc://127.0.0.1:{port}", f"http://127.0.0.1:{port}"):
        started = time.monotonic()
        result = run("gomin-client", "reconstruct", tmp_path / "a.flac", "--url", url, "--wait", "1.5")

        assert result.returncode == 3
        assert time.monotonic() - started > 1.5
        warning, error = result.stderr.splitlines()
        assert f"gomin-client: warning: no Triton server at {url}" in warning
        assert f"no Triton server at {url}" in error
        assert error.endswith("tried for 1.5 s")
        assert_fails(run("gomin-client", "info", "--url", url), 3, "no Triton server", url)
    assert [path.name for path in tmp_path.iterdir()] == ["a.flac"]


def test_a_server_that_does_not_come_back(gan_alone: Path, tmp_path: Path, inputs: Path) -> None:
    options = ("--retry-for", "1")
    with (
        serving(gan_alone, tmp_path / "log") as server,
        reconstructing(inputs, tmp_path / "out", "--url", server.grpc, *options, files=4) as client,
    ):
        wait_for_files(tmp_path / "out", 2)
        server.kill()
        client.gate.allow()
        client.wait()

    errors = client.errors
    assert client.process.returncode == 3
    assert "; trying again for 1 s" in errors
    assert "tried for 1 s" in errors
    done = len(audio_of(tmp_path / "out"))
    assert f"{done} done" in errors.splitlines()[-1]
    assert "not tried" in errors.splitlines()[-1]


def test_a_server_that_comes_back_with_another_model(gan_alone: Path, tmp_path: Path) -> None:
    """The same name and version, and the same mels, of another checkpoint."""
    other = repository_of_another_checkpoint(gan_alone, tmp_path / "other")
    ports = free_ports(3)
    mel = np.zeros((128, 5), np.float32)
    with ExitStack() as stack:
        with serving(gan_alone, tmp_path / "log1", ports=ports) as server:
            vocoder = stack.enter_context(Vocoder(server.grpc, connection=Connection(retry_for_s=60)))
            vocoder.synthesize(mel)
        stack.enter_context(serving(other, tmp_path / "log2", ports=ports))

        with pytest.raises(ContractError, match="came back with another model gomin_gan in version 1"):
            vocoder.synthesize(mel)


def test_of_two_servers_one_comes_back_as_another(server: RunningServer, gan_alone: Path, tmp_path: Path) -> None:
    """The other one answers all the time, so nothing is ever lost."""
    ports = free_ports(3)
    other = repository_of_another_checkpoint(gan_alone, tmp_path / "other")
    mel = np.zeros((128, 5), np.float32)
    with ExitStack() as stack:
        with serving(gan_alone, tmp_path / "log1", ports=ports) as second:
            vocoder = stack.enter_context(Vocoder([server.grpc, second.grpc]))
            vocoder.synthesize(mel)
        vocoder.synthesize(mel)
        stack.enter_context(serving(other, tmp_path / "log2", ports=ports))

        def go_on() -> None:
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline:
                vocoder.synthesize(mel)

        with pytest.raises(ContractError, match="serve different models as gomin_gan version 1"):
            go_on()


def repository_of_another_checkpoint(repository: Path, home: Path) -> Path:
    """The same models, by their own account made of something else."""
    shutil.copytree(repository, home)
    config = home / "gomin_gan" / "config.pbtxt"
    text = config.read_text()
    key = 'key: "gomin.checkpoint_sha256.1"'
    at = text.index('string_value: "', text.index(key)) + len('string_value: "')
    config.write_text(text[:at] + "0" * 64 + text[at + 64 :])
    return home


def test_two_servers_with_different_models(server: RunningServer, tiny_repository: Path, tmp_path: Path) -> None:
    with (
        serving(tiny_repository, tmp_path / "log") as other,
        pytest.raises(ContractError, match="serve different models as gomin_gan version 1"),
    ):
        Vocoder([server.grpc, other.grpc])


@pytest.mark.parametrize("transport", ["grpc", "http", "local"])
def test_a_request_that_takes_too_long(server: RunningServer, repository: Path, transport: str) -> None:
    """It fails by itself, and is not repeated."""
    url = f"local:{repository}" if transport == "local" else getattr(server, transport)
    mel = np.zeros((32, 100), np.float32)  # seconds of work, which a server goes on with after a request over HTTP
    with (
        Vocoder(url, "diffusion", connection=Connection(timeout_s=1)) as vocoder,
        pytest.raises(DeadlineError, match="timeout_s"),
    ):
        vocoder.synthesize(mel, seed=1)
    with Vocoder(url, "diffusion") as vocoder:
        assert vocoder.synthesize(mel[:, :3], seed=1).shape == (768,)


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_tensors_far_beyond_grpcs_usual_limit(server: RunningServer, transport: str) -> None:
    """4 MB is gRPC's; these are more in both directions. Of our models the front end computes least."""
    audio = np.zeros((1, 1, 256 * (2**13 + 1)), np.float32)
    with connect(getattr(server, transport)) as connection:
        mel = connection.infer("gomin_mel", 1, {"audio": audio})["mel"]

    assert audio.nbytes > mel.nbytes > 4 * 2**20


def test_a_name_with_all_its_addresses(server: RunningServer) -> None:
    with Vocoder(f"dns:///localhost:{server.grpc_port}") as vocoder:
        assert vocoder.url == f"dns:///localhost:{server.grpc_port}"
        assert vocoder.synthesize(np.zeros((128, 3), np.float32)).shape == (768,)


@pytest.mark.parametrize("transport", ["grpc", "http", "local"])
def test_many_threads_share_one_vocoder(server: RunningServer, repository: Path, transport: str) -> None:
    url = f"local:{repository}" if transport == "local" else getattr(server, transport)
    mels = [np.full((128, 4 + index % 3), index / 16, np.float32) for index in range(16)]
    with Vocoder(url) as vocoder:
        expected = [vocoder.synthesize(mel) for mel in mels]
        results: dict[int, NDArray[np.float32]] = {}

        def work(index: int) -> None:
            results[index] = vocoder.synthesize(mels[index])

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(mels))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for index, wave in enumerate(expected):
        np.testing.assert_allclose(results[index], wave, rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match="has been closed"):
        vocoder.synthesize(mels[0])


def test_closing_ends_retrying(tmp_path: Path, gan_alone: Path) -> None:
    """It would go on for an hour."""
    with serving(gan_alone, tmp_path / "log") as server:
        vocoder = Vocoder(server.grpc, connection=Connection(retry_for_s=3600))
    outcome: list[BaseException] = []

    def synthesize() -> None:
        try:
            vocoder.synthesize(np.zeros((128, 3), np.float32))
        except UsageError as error:
            outcome.append(error)

    thread = threading.Thread(target=synthesize)
    thread.start()
    thread.join(1)
    assert thread.is_alive(), "it is not being retried"
    vocoder.close()
    thread.join(60)

    assert not thread.is_alive()
    assert "has been closed" in str(outcome[0])
