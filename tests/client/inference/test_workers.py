"""Threads for requests in flight."""

import gc
import threading

import pytest

from gomin_client.errors import UsageError
from gomin_client.inference.workers import Workers


def test_an_idle_thread_is_reused() -> None:
    workers, seen = Workers(most=2), set()
    for _ in range(50):
        workers.submit(lambda: seen.add(threading.get_ident())).result()
    workers.close()

    assert len(seen) <= 2


def test_tasks_run_at_the_same_time() -> None:
    workers, both = Workers(), threading.Barrier(2, timeout=60)
    futures = [workers.submit(both.wait) for _ in range(2)]

    assert sorted(future.result() for future in futures) == [0, 1]


def test_closed() -> None:
    workers = Workers()
    workers.close()

    with pytest.raises(UsageError, match="closed"):
        workers.submit(lambda: None).result()


@pytest.mark.parametrize("close", [True, False])
def test_threads_end_when_it_is_closed_or_dropped(close: bool) -> None:
    workers = Workers()
    thread = workers.submit(threading.current_thread).result()
    if close:
        workers.close()
    else:
        del workers
        gc.collect()

    thread.join(60)
    assert not thread.is_alive()
