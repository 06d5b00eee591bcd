"""Who may write below a root on S3, asked of a real S3 server."""

import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.servers import S3Server

from lookalike import files
from lookalike.errors import RootBusy, RootUnusable
from lookalike.spark import writer_lock
from lookalike.spark.writer_lock import WriterLock, hold_writer_lock

Place = Callable[[str], WriterLock]


@pytest.fixture
def place(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A function that gives the lock of a run, all on one object of a bucket of their own."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = s3_server.bucket(f"lock-{uuid.uuid4().hex}")
    fs, path = files.filesystem(f"{bucket}/root/.writers")
    return lambda run_id: WriterLock(fs, path, run_id)


def test_one_holds_it_until_it_gives_it_back(place: Place) -> None:
    first, second = place("first"), place("second")
    first.acquire()
    with pytest.raises(RootBusy, match=r"run first of .*only one can.*lock s3://.*/root/.writers/0 ends at 20"):
        second.acquire()
    second.release()  # of what it doesn't hold
    assert first.renew()
    first.release()
    second.acquire()
    assert not first.renew()
    assert second.renew()


def acquires(lock: WriterLock) -> bool:
    try:
        lock.acquire()
    except RootBusy:
        return False
    return True


@pytest.mark.parametrize("left_behind", [False, True])
def test_one_of_many_at_once_gets_it(place: Place, left_behind: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    late = place("late")
    if left_behind:
        with monkeypatch.context() as patch:
            patch.setattr(writer_lock, "LEASE", timedelta(seconds=-1))
            late.acquire()
    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(acquires, [place(f"run-{number}") for number in range(16)])) == 1
    assert not left_behind or not late.renew()


KILLED = """
import os, signal, sys
from lookalike.spark import writer_lock
writer_lock._processes = eval(sys.argv[2], {"here": writer_lock._processes})
writer_lock.hold_writer_lock(sys.argv[1], "killed")
os.kill(os.getpid(), signal.SIGKILL)
"""

LOST = """
import sys, time
from lookalike import files
from lookalike.spark import writer_lock
writer_lock._RENEWALS_PER_LEASE = 1000  # one about every tenth of a second, of a lease that will not end meanwhile
writer_lock.hold_writer_lock(sys.argv[1], "lost")
fs, path = files.filesystem(sys.argv[1] + "/.writers")
[lock] = fs.find(path)
first = fs.cat_file(lock)
while fs.cat_file(lock) == first:  # until it is renewed
    time.sleep(0.1)
try:
    fs.rm_file(lock)  # the next renewal may come before this returns
    time.sleep(60)
except KeyboardInterrupt:
    print("stopped")
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)


def test_a_killed_holder_beside_us_is_seen_to_be_gone(place: Place) -> None:
    lock = place("next")
    killed = python(KILLED, f"s3a://{lock.folder.removesuffix('/.writers')}", "here")
    assert killed.returncode == -9, killed.stderr
    lock.acquire()


def test_of_a_holder_elsewhere_only_the_lease_tells(place: Place) -> None:
    lock = place("next")
    killed = python(KILLED, f"s3a://{lock.folder.removesuffix('/.writers')}", "lambda: 'another machine'")
    assert killed.returncode == -9, killed.stderr
    assert not acquires(lock)


def test_a_run_that_lost_it_stops(place: Place) -> None:
    lock = place("other")
    lost = python(LOST, f"s3a://{lock.folder.removesuffix('/.writers')}")
    assert lost.returncode == 0, lost.stderr
    assert lost.stdout == "stopped\n"
    assert f"the lock s3://{lock.folder}/0 was lost" in lost.stderr


class Careless:
    """A store that ignores the conditions of a put."""

    def __init__(self, fs: Any) -> None:
        self.fs = fs

    def pipe_file(self, path: str, value: bytes, **_condition: str) -> Any:
        return self.fs.pipe_file(path, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fs, name)


def test_a_store_without_conditional_puts_is_refused(place: Place) -> None:
    lock = place("run")
    with pytest.raises(RootUnusable, match="ignores If-None-Match"):
        WriterLock(Careless(lock.fs), lock.folder, "run").acquire()
    assert not lock.fs.find(lock.folder)


def test_other_stores_need_none(tmp_path: Path) -> None:
    hold_writer_lock(f"file://{tmp_path}", "run")
    assert not list(tmp_path.iterdir())
