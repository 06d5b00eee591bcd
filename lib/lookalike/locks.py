"""Locks for objects that live on in forked processes."""

import os
import threading
import weakref
from types import TracebackType


class Lock:
    """A lock that is free in a forked process, even where another thread held it: that thread is not there to free it.

    What it guards must be whole at any moment, such as an attribute that is replaced at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Make it free, whoever holds it."""
        self._lock = threading.Lock()


_locks: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _renew_all() -> None:
    for lock in _locks:
        lock.renew()


os.register_at_fork(after_in_child=_renew_all)
