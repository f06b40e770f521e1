"""What `test_ray.py` runs in one small Ray, in the current folder: python -m tests.client.in_ray REPOSITORY.

It runs the examples of docs/datasets.md, kills an actor with SIGKILL in the middle of its work, and processes a folder.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from gomin_client.ray import Reconstructor, Rows
from tests.ray_cluster import small_ray
from tests.soak.dataset import reconstruct_in_ray
from tests.support import ROOT

KILLED_AT = 5  # the row whose actor is killed
DEADLINE_S = 600


class Observed(Reconstructor):
    """Notes which process handles which rows. The first one that has made a certain row waits to be killed."""

    def __init__(self, notes: str, **options: Any) -> None:
        super().__init__(**options)
        self._notes = Path(notes)

    def __call__(self, batch: Rows) -> dict[str, Any]:
        rows = [int(row) for row in batch["number"]]
        with (self._notes / f"{time.time_ns()}-{os.getpid()}.rows").open("x") as note:
            json.dump([os.getpid(), rows], note)
        made = super().__call__(batch)
        if KILLED_AT in rows and not (self._notes / "killed").exists():
            (self._notes / "waiting.part").write_text(str(os.getpid()))
            (self._notes / "waiting.part").rename(self._notes / "waiting")
            signal.pause()
        return made


def kill_when_waiting(notes: Path) -> None:
    """Kill the process that waits for it."""
    deadline = time.monotonic() + DEADLINE_S
    while not (notes / "waiting").exists():
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
    (notes / "killed").touch()
    os.kill(int((notes / "waiting").read_text()), signal.SIGKILL)


def run_with_a_kill(url: str) -> dict[str, Any]:
    """Process recordings/ into survived/ while an actor is killed; who handled which rows."""
    import ray

    notes = Path("notes").absolute()
    notes.mkdir()
    killer = threading.Thread(target=kill_when_waiting, args=(notes,))
    killer.start()
    ray.data.read_parquet("recordings").map_batches(
        Observed,
        fn_constructor_kwargs={"notes": str(notes), "url": url, "column": "audio", "result": "made"},
        batch_size=2,
        num_cpus=0.5,
        compute=ray.data.ActorPoolStrategy(size=2),
    ).write_parquet("survived")
    killer.join()
    handled = [json.loads(path.read_text()) for path in sorted(notes.glob("*.rows"))]
    return {"killed": int((notes / "waiting").read_text()), "handled": handled}


def run_examples(url: str) -> list[Any]:
    """The programs in docs/datasets.md, one after the other, with one actor each; what each leaves in `failed`."""
    text = (ROOT / "docs" / "datasets.md").read_text()
    found = []
    for example in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        names: dict[str, Any] = {}
        # a process of Ray takes seconds to start
        program, count = re.subn(r"ActorPoolStrategy\(size=2\)", "ActorPoolStrategy(size=1)", example)
        assert count == 1
        exec(compile(program.replace("grpc://triton:8001", url), "docs/datasets.md", "exec"), names)
        found.append([row["error"] for row in names["failed"]])
    return found


def main() -> None:
    """See the module."""
    url = f"local:{sys.argv[1]}"
    with small_ray():
        found = {"examples": run_examples(url), "kill": run_with_a_kill(url)}
        reconstruct_in_ray(Path("in").resolve(), Path("rows").absolute(), url, 1)
    Path("found.json").write_text(json.dumps(found, default=bytes.decode))


if __name__ == "__main__":
    main()
