"""Work on strangers' bytes in processes of their own, which the system ends when they take too much time or memory.

A decoder is C code that a picture may keep busy for hours, or crash: no thread could be stopped then, and a crash would
take its whole process along.
"""

import importlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from lookalike.child_process import environment, program_of

_LENGTH = struct.Struct("<Q")
_READY = b"\1"
_SERVE = program_of(__name__, "serve")
_TIMERS = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}
_CLOCK_SECONDS = 10  # for each second of a processor
# A process may also be ended by somebody else, for no fault of its input.
_TRIES = 2


class ProcessEnded(RuntimeError):
    """The work took too much time or memory, or crashed."""


class IsolatedFunction:
    """Calls `function(content, **options)`, from bytes to bytes, in a process that may be ended.

    One call may take `seconds` of a processor, and ten times as many by the clock: so a busy machine costs no good
    picture, and no call waits for ever. `memory_bytes` is the address space of a process, Python itself included. There
    are as many processes as there were calls at the same time; they end with this one. JSON must hold the options.
    """

    def __init__(
        self, function: Callable[..., bytes], options: dict[str, Any], seconds: float, memory_bytes: int
    ) -> None:
        self._order = json.dumps([function.__module__, function.__qualname__, options, seconds, memory_bytes])
        self._idle: deque[_Worker] = deque()

    def __call__(self, content: bytes) -> bytes:
        """Return what the function returns; it must not raise. Raises ProcessEnded; safe from many threads."""
        for _ in range(_TRIES):
            try:
                worker = self._idle.pop()
            except IndexError:
                worker = _Worker(self._order)
            result = worker.call(content)
            if result is not None:
                self._idle.append(worker)
                return result
            if -worker.end() in _TIMERS.values():
                break
        raise ProcessEnded


class _Worker:
    def __init__(self, order: str) -> None:
        """Raises RuntimeError where Python can't be started: that is no fault of any input."""
        # One arena and one thread: each more reserves address space.
        limits = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, order],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # where C libraries tell of each oddity of a picture
            env={**environment(), **limits},
        )
        if self._read(len(_READY)) != _READY:
            raise RuntimeError(f"{sys.executable} ended with {self.end()} as it was started to decode pictures")

    def call(self, content: bytes) -> bytes | None:
        """The function's result; None where the process ended."""
        assert self._process.stdin
        try:
            self._process.stdin.write(_LENGTH.pack(len(content)))
            self._process.stdin.write(content)
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        header = self._read(_LENGTH.size)
        return self._read(*_LENGTH.unpack(header)) if header else None

    def end(self) -> int:
        """End the process, if it has not by itself; gives its exit status."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with suppress(BrokenPipeError):  # closing flushes what was not taken
                pipe.close()
        return self._process.wait()

    def _read(self, size: int) -> bytes | None:
        assert self._process.stdout
        data = self._process.stdout.read(size)
        return data if len(data) == size else None


def serve() -> None:
    """The worker's side, until its input is closed. Its timers need no Python: they end C code as well."""
    module, name, options, seconds, memory_bytes = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not be taken for a result
    function = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(outgoing, _READY)
    while header := incoming.read(_LENGTH.size):
        content = incoming.read(*_LENGTH.unpack(header))
        _set_timers(seconds)
        result = function(content, **options)
        _set_timers(0)
        _send(outgoing, _LENGTH.pack(len(result)) + result)


def _set_timers(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, _CLOCK_SECONDS * seconds)


def _send(outgoing: BinaryIO, data: bytes) -> None:
    outgoing.write(data)
    outgoing.flush()
