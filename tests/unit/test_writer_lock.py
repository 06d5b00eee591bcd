"""A run holds its root on a store that fails, or never answers: it stops before another may take over."""

import atexit
import getpass
import json
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any

import pytest

from lookalike import files
from lookalike.spark import writer_lock
from lookalike.spark.writer_lock import LEASE, hold_writer_lock

LONGEST = 10.0  # real seconds that a thread may take to do its next step; only a failing test waits that long


class Clock:
    """Stands still until it is told to go on; for the module it is `datetime`, too."""

    fromisoformat = staticmethod(datetime.fromisoformat)

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)
        self.changed = threading.Condition()
        self._waiting = 0

    def now(self, _zone: tzinfo) -> datetime:
        return self.time

    def wait(self, seconds: float, is_over: Callable[[], bool]) -> None:
        until = self.time + timedelta(seconds=seconds)
        with self.changed:
            self._waiting += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: is_over() or self.time >= until)
            self._waiting -= 1

    def go_on(self, time: timedelta, waiting: int) -> None:
        """Let that much time pass, once so many threads wait for it to."""
        with self.changed:
            assert self.changed.wait_for(lambda: self._waiting == waiting, LONGEST)
            self.time += time
            self.changed.notify_all()


class ClockedEvent(threading.Event):
    """An event whose `wait` goes by a Clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def set(self) -> None:
        super().set()
        with self._clock.changed:
            self._clock.changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self._clock.wait(timeout, self.is_set)
        return self.is_set()


class Refused(OSError):
    """As S3 tells that a condition does not hold."""

    response = {"ResponseMetadata": {"HTTPStatusCode": 412}}  # noqa: RUF012


class Store:
    """A store on which one run may lock the root, and that answers no further put."""

    protocol = ("s3", "s3a")

    def __init__(self) -> None:
        self.locks: list[dict[str, Any]] = []
        self.asked = threading.Event()
        self.gone = threading.Event()

    def pipe_file(self, _path: str, value: bytes, **condition: str) -> dict[str, str]:
        if not self.locks:
            self.locks.append(json.loads(value))
            return {"ETag": "1"}
        if "mode" in condition:
            raise Refused
        self.asked.set()
        self.gone.wait()
        raise OSError

    def find(self, _folder: str) -> list[str]:
        return []

    def info(self, path: str) -> dict[str, str]:
        raise FileNotFoundError(path)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    found = Store()
    monkeypatch.setattr(files, "filesystem", lambda _uri: (found, "bucket/root/.writers"))
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    yield found
    for release in at_exit:
        release()
    found.gone.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(writer_lock, "datetime", clock)
    threads = SimpleNamespace(Thread=threading.Thread, Event=lambda: ClockedEvent(clock))
    monkeypatch.setattr(writer_lock, "threading", threads)
    return clock


def test_a_renewal_that_hangs_ends_the_run_before_its_lease(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()
    monkeypatch.setattr(os, "kill", lambda _process, _signal: stopped.set())
    hold_writer_lock("s3://bucket/root", "run")
    ends_at = datetime.fromisoformat(store.locks[0]["expires_at"])
    clock.go_on(LEASE / 6, waiting=2)  # the one that renews, and the one that watches
    assert store.asked.wait(LONGEST)
    clock.go_on(LEASE / 2, waiting=1)
    assert not stopped.is_set()
    clock.go_on(LEASE / 6, waiting=1)
    assert stopped.wait(LONGEST)
    assert clock.time < ends_at


def test_a_user_without_a_name_can_hold_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4242")

    monkeypatch.delenv("HADOOP_USER_NAME", raising=False)
    monkeypatch.setattr(getpass, "getuser", nameless)
    hold_writer_lock("s3://bucket/root", "run")
    assert store.locks[0]["owner"].startswith(f"uid {os.getuid()}@")
