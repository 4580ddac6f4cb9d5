"""What tests of every kind need: to wait for what comes by itself, further parameters, and ports of their own."""
from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest

Answer = TypeVar("Answer")
PATIENCE = 300.0


def eventually(answer: Callable[[], Answer], why: Callable[[], str] = lambda: "", patience: float = PATIENCE) -> Answer:
    """What `answer` returns once that is true; within `patience` seconds, which a busy machine may need, or it fails.

    `why` tells what is known about the reason.
    """
    end = time.monotonic() + patience
    while not (found := answer()):
        if time.monotonic() > end:
            pytest.fail(f"it did not happen in {patience:.0f} s {why()}".rstrip())
        time.sleep(0.02)
    return found


def further(*values: Any) -> list[Any]:
    """Parameters of a test that are tried only where every fault is."""
    return [pytest.param(value, marks=pytest.mark.every_fault) for value in values]


def free_ports(count: int) -> list[int]:
    """So many ports of the loopback interface that nobody listens on, each another."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _number in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    return free_ports(1)[0]
