"""A small Ray on this machine, in a network namespace of its own: Ray listens on the machine's address, too."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.server import namespace

NO_NAMESPACE = 77  # exit status of a program that cannot make one
OBJECT_STORE_BYTES = 80 * 1024**2  # Ray's minimum is 75 MB


@contextmanager
def small_ray() -> Iterator[None]:
    """Ray with two CPUs and little memory, without its dashboard. It ends the process where there is no namespace.

    The process must not have threads, so that users other than root may do this where the system permits it.
    """
    try:
        namespace.enter("127.0.0.2")
    except OSError as error:
        print(f"cannot make a network namespace: {error}; run this as root", file=sys.stderr)
        sys.exit(NO_NAMESPACE)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    os.environ["RAY_DATA_PARQUET_FOOTER_NUM_ACTORS"] = "1"  # of 32 processes, with which it begins to read any file
    import ray
    import ray.data

    # paths of sockets are limited to about 100 characters: not below a test's own directory
    home = tempfile.mkdtemp(prefix="ray-")
    try:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=home,
            log_to_driver=False,
            logging_level="error",
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(home, ignore_errors=True)
