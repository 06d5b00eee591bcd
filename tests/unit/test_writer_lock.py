"""A run holds its root on a store that fails, or never answers: it stops before another may take over."""

import atexit
import getpass
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from lookalike import files
from lookalike.spark import writer_lock
from lookalike.spark.writer_lock import hold_writer_lock

LEASE = timedelta(seconds=1.2)


class Refused(OSError):
    """As S3 tells that a condition does not hold."""

    response = {"ResponseMetadata": {"HTTPStatusCode": 412}}  # noqa: RUF012


class Store:
    """A store on which one run may lock the root, and that answers no further put."""

    protocol = ("s3", "s3a")

    def __init__(self) -> None:
        self.locks: list[dict[str, Any]] = []
        self.gone = threading.Event()

    def pipe_file(self, _path: str, value: bytes, **condition: str) -> dict[str, str]:
        if not self.locks:
            self.locks.append(json.loads(value))
            return {"ETag": "1"}
        if "mode" in condition:
            raise Refused
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
    monkeypatch.setattr(writer_lock, "LEASE", LEASE)
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    yield found
    for release in at_exit:
        release()
    found.gone.set()


@pytest.mark.usefixtures("store")
def test_a_renewal_that_hangs_ends_the_run_before_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = threading.Event()
    monkeypatch.setattr(os, "kill", lambda _process, _signal: stopped.set())
    began = time.monotonic()
    hold_writer_lock("s3://bucket/root", "run")
    assert stopped.wait(10)
    assert time.monotonic() - began < LEASE.total_seconds()


def test_a_user_without_a_name_can_hold_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4242")

    monkeypatch.delenv("HADOOP_USER_NAME", raising=False)
    monkeypatch.setattr(getpass, "getuser", nameless)
    hold_writer_lock("s3://bucket/root", "run")
    assert store.locks[0]["owner"].startswith(f"uid {os.getuid()}@")
