"""Manners towards a web host, shared by all tasks of an executor: how many requests at once, how often, and when none.

Tasks are processes. What they know of a host stands in a small file in the executor's scratch folder, and a request
holds the lock of one of the host's places; the system lets go of a lock when its process is killed.

- A host that answers 429 or 503, or not at all, is asked more slowly: each time half as often, and bit by bit more
  often again as it answers. `Retry-After` is kept.
- A host that does nothing else for `ingest.connect_timeout_s` is not asked for a while: its images fail at once, with
  the reason that the last request gave. After that one request at a time finds out whether it is back.
"""

import asyncio
import fcntl
import hashlib
import os
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

from lookalike import reasons
from lookalike.config import IngestSettings
from lookalike.unreadable import NotAsked

_FIRST_SLOW_S, _SLOWEST_S = 0.1, 2.0
_SPEED_UP = 0.9
_DOWN_S = 30.0
_BURST_S = 0.1  # a request may come so much too early, so that the rate is kept although sleepers oversleep
_POLL_S, _LONGEST_POLL_S = 0.02, 0.25
_CAUSES = (reasons.SERVER_ERROR, reasons.NO_CONNECTION, reasons.NO_SECURE_CONNECTION, reasons.TIMED_OUT)
CAUSES = {reason.text: number for number, reason in enumerate(_CAUSES)}
"""Reasons that tell of the host and not of one image, by their text."""
SERVER_ERROR = CAUSES[reasons.SERVER_ERROR.text]


@dataclass
class Deadline:
    """When an image's time ends, by the monotonic clock. It moves on while the image waits for others."""

    at_s: float

    def left_s(self) -> float:
        return self.at_s - time.monotonic()


@dataclass
class _Host:
    """What is known of a host; times in seconds of the system's clock, 0.0 for never."""

    interval_s: float = 0.0  # between the starts of two requests
    next_s: float = 0.0  # when the next one may start
    paused_until_s: float = 0.0  # by `Retry-After`
    failing_since_s: float = 0.0
    slowed_s: float = 0.0  # when it was last slowed down
    answered_s: float = 0.0  # when it last answered well
    down_until_s: float = 0.0
    cause: float = 0.0  # of its last failure, a number of _CAUSES


_LAYOUT = struct.Struct("8d")


class Throttle:
    """The manners towards one host. Its methods are called on the event loop alone."""

    def __init__(self, host: str, settings: IngestSettings) -> None:
        self._file = _folder() / hashlib.sha256(host.encode()).hexdigest()[:32]
        self._places = settings.host_requests
        self._interval_s = 1 / settings.host_requests_per_s
        self._patience_s = settings.connect_timeout_s
        self._queue = asyncio.Lock()  # one of a process looks whether it is its turn, the others wait behind it

    @asynccontextmanager
    async def turn(self, deadline: Deadline) -> AsyncIterator[None]:
        """Wait until a request may start, and hold one of the host's places while the block runs.

        What it waits for others is no loss of the image's time; what the host asked to wait is. Raises NotAsked where
        the host is down, or asked to wait for longer than the image has time.
        """
        began = time.monotonic()
        async with self._queue:
            place, paused_s = await self._take_place(deadline)
        try:
            deadline.at_s += time.monotonic() - began - paused_s
            yield
        finally:
            os.close(place)

    async def _take_place(self, deadline: Deadline) -> tuple[int, float]:
        """The descriptor of a place's lock, and for how many seconds the host was paused meanwhile."""
        paused_s = 0.0
        while True:
            with self._known() as host:
                now = time.time()
                pause_s = host.paused_until_s - now
                if now < host.down_until_s or pause_s > deadline.left_s():
                    raise NotAsked(_CAUSES[int(host.cause)])
                wait_s = max(host.next_s - now, pause_s)
                if wait_s <= 0 and (place := self._lock_place()) is not None:
                    interval_s = max(host.interval_s, self._interval_s)
                    host.next_s = max(host.next_s, now - _BURST_S) + interval_s
                    return place, paused_s
            slept_s = min(max(wait_s, _POLL_S), _LONGEST_POLL_S)
            await asyncio.sleep(slept_s)
            paused_s += slept_s if pause_s > 0 else 0.0

    def _lock_place(self) -> int | None:
        for number in range(self._places):
            place = os.open(f"{self._file}.{number}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(place)
            else:
                return place
        return None

    def note_answer(self) -> None:
        """The host answered a request, with an image or with a refusal of it.

        One that was gone is back; one that was busy may still be.
        """
        with self._known() as host:
            host.answered_s, host.failing_since_s = time.time(), 0.0
            host.interval_s *= _SPEED_UP if host.cause == SERVER_ERROR else 0.0
            host.next_s = min(host.next_s, host.answered_s + max(host.interval_s, self._interval_s))

    def note_failure(
        self, started_s: float, cause: int, is_busy: bool = False, retry_after_s: float | None = None
    ) -> None:
        """A request that started then failed for a `cause` of CAUSES; `is_busy`: the host itself asked for fewer.

        A request that started before the host was slowed down tells nothing new; nor does one that got no answer, if
        the host has answered others since. `retry_after_s`: for how long the host is not to be asked.
        """
        with self._known() as host:
            now = time.time()
            answered_s = 0.0 if is_busy else host.answered_s
            if retry_after_s is not None:
                host.paused_until_s = max(host.paused_until_s, now + retry_after_s)
                host.cause = cause
            if started_s <= max(host.slowed_s, answered_s):
                return
            host.cause, host.slowed_s = cause, now
            host.interval_s = min(max(2 * host.interval_s, _FIRST_SLOW_S), _SLOWEST_S)
            host.next_s = max(host.next_s, now + host.interval_s)
            if retry_after_s:
                host.failing_since_s = host.paused_until_s
            host.failing_since_s = host.failing_since_s or started_s
            if now - host.failing_since_s >= self._patience_s:
                host.down_until_s = now + _DOWN_S

    @contextmanager
    def _known(self) -> Iterator[_Host]:
        """What the tasks know of the host; what the block changes is kept, unless it raises."""
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            content = os.pread(descriptor, _LAYOUT.size, 0)
            host = _Host(*_LAYOUT.unpack(content)) if len(content) == _LAYOUT.size else _Host()
            yield host
            os.pwrite(descriptor, _LAYOUT.pack(*astuple(host)), 0)
        finally:
            os.close(descriptor)


@cache
def throttle_of(host: str, settings: IngestSettings) -> Throttle:
    """The one of this process. Called on the event loop alone."""
    return Throttle(host, settings)


@cache
def _folder() -> Path:
    """In a task the executor's scratch folder, which Spark removes in the end; elsewhere one of this process."""
    if scratch := os.environ.get("SPARK_LOCAL_DIRS"):
        with suppress(OSError):  # what the environment of a driver names may not be there
            folder = Path(scratch.partition(",")[0], f"lookalike-hosts-{os.getuid()}")
            folder.mkdir(exist_ok=True)
            return folder
    return Path(_own_folder().name)


@cache
def _own_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="lookalike-hosts-")  # removed with this process
