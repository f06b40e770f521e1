"""What a server has on this machine: its processes, its shared memory and its temporary directories."""

import re
from pathlib import Path

from tests.support import RunningServer


def descendants(pid: int) -> set[int]:
    """The live processes below one, as /proc shows them."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == pid:
                found |= {int(entry.name)} | descendants(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def leftovers(server: RunningServer) -> list[Path]:
    """Shared memory and temporary directories of this server that exist."""
    directories = temporary_directories(server)
    tokens = [path.name.rpartition("-")[2] for path in directories]
    shared_memory = [path for token in tokens for path in Path("/dev/shm").glob(f"gomin_server_{token}_*")]
    return shared_memory + [path for path in directories if path.exists()]


def temporary_directories(server: RunningServer) -> list[Path]:
    """The private directories that the server's log names."""
    return sorted({Path(name) for name in re.findall(r'[^" ]*/gomin-server-\w+', server.log_text)})
