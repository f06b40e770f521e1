"""From checkpoints to audio: export to ONNX, serve with Triton, reconstruct, listen. Results are under demo/.

Run by `make demo`. Every command is printed as a person would type it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from demo_programs import (
    BIN,
    EndedError,
    InterruptedByUserError,
    end,
    executable,
    foreground,
    free_ports,
    ignore_signals,
    print_while_running,
    raise_signals,
    run,
    show,
    step,
    tail,
)

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = Path("examples")
CHECKPOINTS = Path("checkpoints")
PORTS = {"HTTP": 8000, "gRPC": 8001, "metrics": 8002, "gateway": 8080}
READY_TIMEOUT_S = 300
GAN, DIFFUSION = "gan", "diffusion"
SEED = 1  # of the diffusion model's noise, so that every run makes the same sound
EXPORT_OPTIONS = {GAN: (), DIFFUSION: ("--stream",)}  # the page shows each step of a chain
CHAINS = {"diffusion": {}, "diffusion_fast": {"sampler": "fast"}}  # folder → options of the client


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is shown.

    Attributes:
        path: the file, or an address that gomin-export takes.
        kind: `GAN` or `DIFFUSION`.
        note: what to say about its sound; empty if nothing is known.
    """

    path: str
    kind: str
    note: str = ""


@dataclass(frozen=True)
class Result:
    """Reconstructions of recordings by one model.

    Attributes:
        title: names the model, and its sampling chain.
        folder: the files, with the names of the recordings.
        query: the model as the gateway's parameters.
    """

    title: str
    folder: Path
    query: str


class Demo:
    """One run."""

    def __init__(self, checkpoints: Sequence[Checkpoint], home: Path) -> None:
        """Args: checkpoints: at most one of each kind; home: an empty folder for the results."""
        self.checkpoints = checkpoints
        self.home = home
        self.repository = home / "model_repository"
        self.ports = free_ports(PORTS)
        self.url = f"grpc://localhost:{self.ports['gRPC']}"
        self.address = f"http://localhost:{self.ports['gateway']}/"
        recordings = sorted(EXAMPLES.glob("*.flac"))
        self.recordings = recordings
        self.shortest = min(recordings, key=duration)
        self.servers: list[tuple[str, subprocess.Popen[bytes]]] = []

    def export(self) -> None:
        """Export all checkpoints at the same time, and print what the first one prints, then the next."""
        step("1. Export to ONNX, and compare ONNX Runtime with PyTorch")
        commands = [
            ["gomin-export", kind, "--ckpt", path, "--repository", str(self.repository), *EXPORT_OPTIONS[kind]]
            for kind, path in ((each.kind, each.path) for each in self.checkpoints)
        ]
        with ExitStack() as stack:
            for number, command in enumerate(commands):
                last = number == len(commands) - 1
                show(command, "" if last else "&")
            logs = [self.home / f"export_{each.kind}.log" for each in self.checkpoints]
            running = []
            for command, log in zip(commands, logs, strict=True):
                output = stack.enter_context(log.open("wb"))
                running.append(subprocess.Popen(executable(command), stdout=output, stderr=subprocess.STDOUT))
                stack.callback(end, running[-1])
            for process, log in zip(running, logs, strict=True):
                print_while_running(process, log)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A Triton server and a gateway, which are ended at the end."""
        step("2. Start a Triton server, and the gateway in front of it")
        ports = [str(self.ports[name]) for name in ("HTTP", "gRPC", "metrics")]
        names = ("--http-port", "--grpc-port", "--metrics-port")
        options = [word for pair in zip(names, ports, strict=True) for word in pair]
        with ExitStack() as stack:
            stack.callback(self._end)
            self._start("server", "gomin-server", "--model-repository", str(self.repository), *options)
            self._start("gateway", "gomin-gateway", "--url", self.url, "--port", str(self.ports["gateway"]))
            self._wait_until_ready()
            yield

    def _start(self, name: str, *command: str) -> None:
        log = self.home / f"{name}.log"
        show(command, f"> {log} 2>&1 &")
        with log.open("w") as output:
            # in a group of its own: Ctrl-C reaches the demo alone, which then ends both in order
            process = subprocess.Popen(
                executable(command), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, process_group=0
            )
        self.servers.append((name, process))

    def _end(self) -> None:
        ignore_signals()
        step("End the gateway and the server")
        for name, process in reversed(self.servers):
            end(process)
            print(f"the {name} ended with status {process.returncode}", flush=True)
            if process.returncode:
                print(tail(self.home / f"{name}.log"), flush=True)

    def check_running(self) -> None:
        """End the demo if the server or the gateway has ended."""
        for name, process in self.servers:
            if process.poll() is not None:
                log = self.home / f"{name}.log"
                sys.exit(f"the {name} ended with status {process.returncode}; the end of its log:\n{tail(log)}")

    def _wait_until_ready(self) -> None:
        """Ask the gateway, which asks the server."""
        started = time.monotonic()
        while time.monotonic() - started < READY_TIMEOUT_S:
            self.check_running()
            try:
                with urllib.request.urlopen(f"{self.address}readyz", timeout=READY_TIMEOUT_S):
                    print(f"both are ready after {time.monotonic() - started:.1f} s", flush=True)
                    return
            except OSError:
                time.sleep(0.2)
        logs = "\n".join(tail(self.home / f"{name}.log") for name, _ in self.servers)
        sys.exit(f"they were not ready within {READY_TIMEOUT_S} s; the ends of their logs:\n{logs}")

    def verify(self) -> None:
        """Repeat the parity gate through the server."""
        step("3. Compare the running server with the export")
        run("gomin-export", "verify", "--url", self.url, "--repository", str(self.repository))

    def reconstruct(self) -> list[Result]:
        """Reconstruct all recordings with a GAN, the shortest with a diffusion model, which is slower."""
        step("4. Reconstruct the example recordings through it")
        results = []
        kinds = {each.kind for each in self.checkpoints}
        to_server = ("--url", self.url)
        if GAN in kinds:
            folder, plot = self.home / GAN, self.home / "spectrograms.png"
            names = map(str, self.recordings)
            run("gomin-client", "reconstruct", *names, "-o", f"{folder}/", *to_server, "--plot", str(plot))
            results.append(Result("GAN", folder, urlencode({"model": GAN})))
        if DIFFUSION in kinds:
            for name, chain in CHAINS.items():
                folder = self.home / name
                options = [word for key, value in chain.items() for word in (f"--{key}", value)]
                run(
                    "gomin-client", "reconstruct", str(self.shortest), "-o", f"{folder}/", *to_server,
                    "--model", DIFFUSION, *options, "--seed", str(SEED),
                )  # fmt: skip
                title = f"diffusion, {chain.get('sampler', 'full chain')}"
                results.append(Result(title, folder, urlencode({"model": DIFFUSION, "seed": SEED, **chain})))
        return results

    def report(self, results: Sequence[Result]) -> list[Path]:
        """Write pages to hear and see the recordings, with a picture of the shortest one; returns what to look at."""
        step("5. Write reports")
        notes = {each.kind: each.note for each in self.checkpoints}
        made = []
        if any(result.title == "GAN" for result in results):
            made += [self.home / "report.html", self.home / "spectrograms.png"]
            compare(EXAMPLES, [self.home / GAN], made[0], notes[GAN])
        if DIFFUSION in notes:
            page = self.home / "diffusion.html"
            name = f"{self.shortest.stem}.wav"
            compare(self.shortest, [result.folder / name for result in results], page, notes[DIFFUSION])
            picture = page.with_suffix(".png")
            draw(picture, self.shortest, [(result.title, result.folder / name) for result in results])
            print(picture, flush=True)
            made += [page, picture]
        return made

    def check_gateway(self, result: Result) -> None:
        """Fetch the page, and reconstruct through the gateway what the client has reconstructed."""
        step("6. Check the gateway")
        page = fetch(self.address).decode()
        if "<title>GOMIN" not in page:
            sys.exit(f"{self.address} does not answer with the page: {page[:200]}")
        print(f"{self.address} answers with its page", flush=True)
        url = f"{self.address}v1/reconstruct?{result.query}"
        show(("curl", "--data-binary", f"@{self.shortest}", url), f"> {self.home}/gateway.wav")
        answer = self.home / "gateway.wav"
        answer.write_bytes(fetch(url, self.shortest.read_bytes()))
        file = result.folder / f"{self.shortest.stem}.wav"
        difference = largest_difference(answer, file)
        if difference > 1:
            sys.exit(f"{answer} differs from {file} by {difference} steps of 16 bits; expected at most 1")
        print(f"its samples equal those in {file}; largest difference: {difference} steps of 16 bits", flush=True)

    def keep(self) -> None:
        """Print the address, and wait for Ctrl-C."""
        print(f"\nOpen  {self.address}  in a browser: record or drop a sound, and hear its reconstruction.")
        print(f"The Triton server listens at {self.url}. Ctrl-C ends both.", flush=True)
        while True:
            self.check_running()
            time.sleep(0.5)

    def next_commands(self, when: str) -> str:
        """What to type next."""
        kind = self.checkpoints[0].kind
        http, grpc, metrics, gateway = (self.ports[name] for name in PORTS)
        url = self.url
        export = " ".join(("gomin-export", kind, "--ckpt YOURS --repository model_repository", *EXPORT_OPTIONS[kind]))
        activate = Path(os.path.relpath(BIN)) if ROOT in BIN.parents else BIN
        server = f"gomin-server --model-repository model_repository --http-port {http} --grpc-port {grpc}"
        return (
            f"\nNext, with a {kind} checkpoint of your own in place of YOURS{when}:\n"
            f"\n    . {activate}/activate"
            f"\n    {export}"
            f"\n    {server} --metrics-port {metrics} &"
            f"\n    gomin-gateway --url {url} --port {gateway} &"
            f"\n    gomin-client reconstruct {self.shortest} -o yours.wav --model {kind} --url {url} --wait 60"
            f"\n    gomin-client compare {self.shortest} yours.wav --html yours.html"
            "\n\nThe same in one command: make demo CKPT=YOURS. With KEEP=1 the server and the gateway keep running."
        )


def main() -> int:
    """Run all steps; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", help="a checkpoint of your own, of either network, instead of those of the project")
    parser.add_argument("--keep", action="store_true", help="keep the server and the gateway until Ctrl-C")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS, help="folder of the project's checkpoints")
    parser.add_argument("--into", type=Path, help="a new folder for the results; demo/ by default, which is made anew")
    arguments = parser.parse_args()
    checkpoint, into = arguments.ckpt, arguments.into and arguments.into.absolute()
    folder = CHECKPOINTS if arguments.checkpoints == CHECKPOINTS else arguments.checkpoints.absolute()
    if checkpoint and "://" not in checkpoint:
        checkpoint = os.path.abspath(checkpoint)
    os.chdir(ROOT)
    raise_signals()
    with foreground() if arguments.keep else nullcontext():
        try:
            demonstrate(
                [recognized(checkpoint)] if checkpoint else own_checkpoints(folder), emptied(into), arguments.keep
            )
        except EndedError as ended:
            print(f"\nmake demo: ended by {signal.Signals(ended.number).name}", file=sys.stderr)
            return 128 + ended.number
        except subprocess.CalledProcessError as failure:
            return failure.returncode
    return 0


def demonstrate(checkpoints: Sequence[Checkpoint], home: Path, keep: bool) -> None:
    """Run all steps; with `keep`, until Ctrl-C."""
    demo = Demo(checkpoints, home)
    demo.export()
    with demo.serving():
        demo.verify()
        results = demo.reconstruct()
        pages = demo.report(results)
        demo.check_gateway(results[-1])
        print(f"\nListen to   {home}/*/*.wav")
        for path in pages:
            print(f"{'Open' if path.suffix == '.html' else 'Look at':<11} {path}")
        print(f"Logs        {home}/*.log")
        for each in checkpoints:
            if each.note:
                print(f"\n{textwrap.fill(each.note, 100)}")
        print(demo.next_commands(" (after Ctrl-C)" if keep else ""), flush=True)
        if keep:
            with suppress(InterruptedByUserError):
                demo.keep()


def own_checkpoints(folder: Path) -> list[Checkpoint]:
    """Those of the project, with what the notes beside them say."""
    found = []
    for kind in (GAN, DIFFUSION):
        path = folder / f"demo_{kind}.pt"
        found.append(Checkpoint(str(path), kind, " ".join(path.with_suffix(".txt").read_text().split())))
    return found


def recognized(checkpoint: str) -> Checkpoint:
    """A checkpoint, whose tensors show which network it is; ends with the exporter's message if it is none."""
    from gomin_client.cli.console import exit_status
    from gomin_export.checkpoints import detect_kind  # takes seconds: torch
    from gomin_export.checkpoints.sources import locate

    with exit_status("gomin-export", lambda: "nothing was exported"):
        located = locate(checkpoint, None, lambda line: print(line, file=sys.stderr))
        return Checkpoint(checkpoint, detect_kind(located.path))


def emptied(home: Path | None) -> Path:
    """An empty folder for the results."""
    if home is None:
        home = Path("demo")
        shutil.rmtree(home, ignore_errors=True)
    elif home.exists() and any(home.iterdir()):
        sys.exit(f"--into {home}: is not empty")
    home.mkdir(parents=True, exist_ok=True)
    return home


def compare(original: Path, results: Sequence[Path], page: Path, note: str) -> None:
    """Write a listening report."""
    extra = ("--note", note) if note else ()
    run("gomin-client", "compare", str(original), *map(str, results), "--html", str(page), *extra)


def fetch(url: str, body: bytes | None = None) -> bytes:
    """The answer to a request; an error ends the demo."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=READY_TIMEOUT_S) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        sys.exit(f"{url}: {error}: {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{url}: {error}")


def duration(recording: Path) -> float:
    """In seconds."""
    import soundfile

    return float(soundfile.info(recording).duration)


def largest_difference(one: Path, other: Path) -> int:
    """The largest difference between two recordings of equal length, in steps of 16 bits."""
    import numpy as np
    import soundfile

    first, second = (soundfile.read(path, dtype="int16")[0].astype(np.int32) for path in (one, other))
    if first.shape != second.shape:
        sys.exit(f"{one} has {len(first)} samples, {other} has {len(second)}")
    return int(np.abs(first - second).max())


def draw(picture: Path, original: Path, results: Sequence[tuple[str, Path]]) -> None:
    """Draw a recording above its reconstructions, (title, file) each."""
    from gomin_client.batch import plot
    from gomin_client.mel.features import MelConfig
    from gomin_client.tools.compare import read_mono

    config = MelConfig()
    waves = [read_mono(path, config) for path in (original, *(path for _, path in results))]
    column = plot.PlotColumn.of(original.stem, waves, config)
    plot.save(picture, [column], config, ["original", *(title for title, _ in results)])


if __name__ == "__main__":
    sys.exit(main())
