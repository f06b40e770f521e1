"""A program that forks while a vocoder is in use, and reports what becomes of it in the children.

Arguments: URL. Prints a line for each case: its name, and the outcome in the child.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from gomin_client import GominError, Vocoder

LONGEST_S = 150
MEL = np.full((128, 40), 0.3, np.float32)


def in_child(name: str, task: Callable[[], object]) -> None:
    """Run a task in a forked process that ends as programs do, with exit handlers and destructors."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            print(name, task())
        except GominError as error:
            print(name, type(error).__name__, error)
        sys.exit(7)
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if os.waitstatus_to_exitcode(status) != 7:
                print(name, "ended with", os.waitstatus_to_exitcode(status))
            return
        time.sleep(0.01)
    os.kill(child, 9)
    print(name, "hangs")


def main(url: str) -> None:
    def afresh() -> object:
        with Vocoder(url) as another:
            return another.synthesize(MEL).shape

    importlib.import_module("gomin_client.transports.grpc")
    in_child("before", afresh)

    vocoder = Vocoder(url, window=70)
    expected = vocoder.synthesize(MEL)
    in_child("threads", lambda: len(os.listdir("/proc/self/task")))
    in_child("inherited", lambda: abs(vocoder.synthesize(MEL) - expected).max() < 1e-5)
    in_child("afresh", afresh)

    parts = vocoder.stream([MEL, MEL, MEL, MEL])
    next(parts)
    in_child("stream", lambda: list(parts))

    going_on = True

    def use() -> None:
        while going_on:
            vocoder.synthesize(MEL)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        in_child("in use", lambda: vocoder.synthesize(MEL).shape)
    in_child("threads", lambda: len(os.listdir("/proc/self/task")))
    in_child("in use afresh", afresh)
    going_on = False
    for thread in threads:
        thread.join()

    print("parent", abs(vocoder.synthesize(MEL) - expected).max() < 1e-5)
    vocoder.close()
    in_child("closed", lambda: vocoder.synthesize(MEL))
    in_child("closed afresh", afresh)


if __name__ == "__main__":
    main(sys.argv[1])
