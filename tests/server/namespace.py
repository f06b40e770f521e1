"""A network namespace: a network of its own, with a loopback interface and one other address."""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import pytest

P = ParamSpec("P")
T = TypeVar("T")

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS = 0x8914
SIOCSIFADDR = 0x8916
IFF_UP = 1


@contextmanager
def isolated(address: str) -> Iterator[Callable[..., T]]:
    """A namespace whose loopback interface has another address too; skips the test where none can be made.

    Yields:
        `inside(function, *arguments)`, which calls a function there and returns its result. Processes that the
        function starts are there too. Threads that libraries have started are not.
    """
    with ThreadPoolExecutor(1) as thread:  # namespaces belong to threads: this process stays where it is

        def inside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
            return thread.submit(function, *args, **kwargs).result()

        try:
            inside(enter, address)
        except OSError as error:
            pytest.skip(f"cannot make a network namespace: {error}; run this test as root")
        yield inside  # type: ignore[misc]


def open_ports(address: str) -> set[int]:
    """The TCP ports on which something answers: all are tried."""
    found = set()
    for port in range(1, 65536):
        with socket.socket() as connection:
            connection.settimeout(5)
            if connection.connect_ex((address, port)) == 0 and connection.getsockname() != connection.getpeername():
                found.add(port)
    return found


def enter(address: str) -> None:
    """Put this thread, and the processes that it will start, into such a namespace.

    Raises:
        OSError: it cannot be made. A process without threads can do it as any user, if the system permits that.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) and libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        family = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16s", b"lo:outside") + family)
