"""One writing run at a time per root on S3.

Delta commits by creating the next file of a table's log, which must fail where the file exists. HDFS guarantees that
between any writers. On local disks and on S3 Delta's log store only guards writers that share a JVM: two runs could
overwrite each other's commits, unseen. On a local disk `Tables` takes a lock for each commit. S3 has no locks, so a run
holds a numbered object `.writers/N` below the root. It is made by a put that fails where the object exists: of several
runs that make the next number at once, S3 lets one succeed.
"""

import atexit
import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lookalike import files
from lookalike.errors import RootBusy, RootUnusable
from lookalike.spark.origin import Origin

LEASE = timedelta(minutes=2)
_RENEWALS_PER_LEASE = 6


def hold_writer_lock(root: str, run_id: str) -> None:
    """Hold the lock of `root` until this process ends; nothing happens where `root` needs none.

    Whoever finds the lock after its holder's death may take it: at once in the place where the holder ran, elsewhere
    when the lease is over. A holder that can't renew its lease in time stops as by Ctrl-C.

    Raises RootBusy with the holder, RootUnusable where the store ignores the conditions of a put.
    """
    fs, folder = files.filesystem(files.join(root, ".writers"))
    if "s3" not in fs.protocol:
        return
    lock = WriterLock(fs, folder, run_id)
    lock.acquire()
    released = threading.Event()

    def release() -> None:
        released.set()
        lock.release()

    atexit.register(release)
    for work in (_renew, _watch):
        threading.Thread(target=work, args=(lock, released), name="writer lock", daemon=True).start()


@dataclass
class WriterLock:
    """An object in `folder` of the S3 file system `fs`. Its ETag tells what this run wrote from what others did."""

    fs: Any
    folder: str
    run_id: str
    path: str = ""
    etag: str = ""
    expires_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def acquire(self) -> None:
        """Raises RootBusy, RootUnusable."""
        ended = self._ended_locks()
        self.path = files.join(self.folder, str(1 + max((int(path.rpartition("/")[2]) for path in ended), default=-1)))
        if not self._put(mode="create") and not self._is_mine():
            self._ended_locks()  # says who came first, unless that run has ended already
            raise RootBusy("another run has just written below this root, and on S3 only one can: run this again")
        try:
            ended = self._ended_locks()  # again, for a run that had looked before this lock was there
            if self._put(mode="create"):
                raise RootUnusable(
                    f"the store of s3://{self.path} ignores If-None-Match, so it can't keep two runs from overwriting "
                    "each other's work: give a root on a store with conditional puts"
                )
        except BaseException:
            self.release()
            raise
        for path in ended:
            self._remove(path)

    def _ended_locks(self) -> list[str]:
        """Paths of the locks that ended runs left behind, without this run's. Raises RootBusy on one that is held."""
        ended = []
        for path in self.fs.find(self.folder):
            try:
                holder = json.loads(self.fs.cat_file(path))
            except FileNotFoundError:  # given back meanwhile
                continue
            if holder["run_id"] == self.run_id:
                continue
            if not _ended(holder):
                raise RootBusy(
                    f"run {holder['run_id']} of {holder['owner']} is writing below this root, and on S3 only one can: "
                    f"run this again when it has ended. If it was killed, its lock s3://{path} ends at "
                    f"{holder['expires_at']}; to end it sooner, delete that object"
                )
            ended.append(path)
        return ended

    def _is_mine(self) -> bool:
        """Whether the lock is this run's: the answer to its put was lost, and the put was tried again."""
        try:
            etag, holder = self._holder()
        except FileNotFoundError:
            return False
        if holder["run_id"] != self.run_id:
            return False
        self.etag = etag
        return True

    def renew(self) -> bool:
        """Hold the lock for another lease; says whether it was still held."""
        return self._put(IfMatch=self.etag) or self._is_mine()

    def release(self) -> None:
        """Give the lock back, if it is still held."""
        if not self.etag:
            return
        try:
            held = self._holder()[0] == self.etag
        except FileNotFoundError:
            return
        if held:
            self._remove(self.path)

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self.fs.rm_file(path)

    def _put(self, **condition: str) -> bool:
        expires_at = datetime.now(UTC) + LEASE
        state = {
            "run_id": self.run_id,
            "owner": f"{Origin.here().who}@{socket.gethostname()}",
            "process": [_processes(), os.getpid()],
            "expires_at": expires_at.isoformat(timespec="seconds"),
        }
        try:
            written = self.fs.pipe_file(self.path, json.dumps(state).encode(), **condition)
        except FileNotFoundError:  # of If-Match, where the lock was deleted
            return False
        except OSError as error:
            if not _is_failed_condition(error):
                raise
            return False
        self.etag, self.expires_at = written["ETag"], expires_at
        return True

    def _holder(self) -> tuple[str, dict[str, Any]]:
        etag: str = self.fs.info(self.path)["ETag"]  # first, so that a put on its condition is about what is read then
        return etag, json.loads(self.fs.cat_file(self.path))


def _is_failed_condition(error: BaseException | None) -> bool:
    """Whether S3 answered 412 (the condition does not hold) or 409 (another put of the object is under way)."""
    while error:
        status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status in (409, 412):
            return True
        error = error.__cause__ or error.__context__
    return False


def _ended(holder: dict[str, Any]) -> bool:
    """Whether the holder's lease is over, or it ran beside this process and is gone."""
    processes, process = holder["process"]
    if processes == _processes() and not Path(f"/proc/{process}").exists():
        return True
    return datetime.fromisoformat(holder["expires_at"]) < datetime.now(UTC)


def _processes() -> str:
    """What tells apart the places where a process id means something: this boot of this machine, and the container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _renew(lock: WriterLock, released: threading.Event) -> None:
    while not released.wait(_renewal().total_seconds()):
        try:
            held = lock.renew()
        except Exception:  # the store may answer again before the lease is over
            continue
        if not held:
            _stop(lock, released)


def _watch(lock: WriterLock, released: threading.Event) -> None:
    """Stop the run shortly before its lease is over; a renewal may hang for longer than that."""
    while (left := lock.expires_at - _renewal() - datetime.now(UTC)) > timedelta():
        if released.wait(left.total_seconds()):
            return
    _stop(lock, released)


def _renewal() -> timedelta:
    return LEASE / _RENEWALS_PER_LEASE


def _stop(lock: WriterLock, released: threading.Event) -> None:
    if not released.is_set():
        released.set()
        print(f"error: the lock s3://{lock.path} was lost, so that another run may write", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGINT)
