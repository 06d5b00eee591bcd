"""Why a file could not be read: the errors of our own readers, and the reason for any error of any file system."""

import errno
import os
import re

from lookalike import reasons
from lookalike.reasons import Reason

_BUSY = frozenset({errno.EAGAIN, errno.EBUSY, errno.EIO, errno.ESTALE})
_NO_ROUTE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})

_BY_KIND: tuple[tuple[type[BaseException], Reason], ...] = (
    (FileNotFoundError, reasons.NOT_FOUND),
    (NotADirectoryError, reasons.NOT_FOUND),
    (IsADirectoryError, reasons.NOT_A_FILE),
    (PermissionError, reasons.PERMISSION_DENIED),
)
# By their names, as every client of a store has classes of its own, which nothing here should have to import.
_BY_NAME = (
    (r"Timeout", reasons.TIMED_OUT),
    (r"SSL", reasons.NO_SECURE_CONNECTION),
    (r"Connect|Disconnect|Payload", reasons.NO_CONNECTION),
    (r"HttpProcessing|ClientResponse", reasons.MALFORMED_ANSWER),
    (r"Credentials|TokenRetrieval", reasons.NO_CREDENTIALS),
    (r"ServerFailed", reasons.SERVER_ERROR),
    (r"ValueError|InvalidURL|ParamValidation", reasons.MALFORMED_URI),
)


class Refused(RuntimeError):
    """A file that is not read, for a reason that the error carries."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


class NotAsked(Refused):
    """A file that is not asked for now, as what its host did before is reason enough."""


class ServerFailed(OSError):
    """A server answered that it can't answer now, and after how many seconds to ask again, if it said so."""

    def __init__(self, status: int, retry_after_s: float | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after_s = retry_after_s


class Answered(OSError):
    """A server answered with a status that is no success and has no error of its own."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def reason_of(error: BaseException) -> str:
    """The text of the reason: short, the same for every file, and free of what the uri may hold."""
    if isinstance(error, Refused):
        return error.reason.text
    if isinstance(error, Answered):
        return reasons.ANSWERED.filled(status=error.status)
    code = getattr(error, "errno", None)
    for kind, reason in _BY_KIND:
        if isinstance(error, kind):
            return reason.text
    if code in _NO_ROUTE:
        return reasons.NO_CONNECTION.text
    if code in _BUSY:
        return reasons.SERVER_ERROR.text
    names = " ".join(kind.__name__ for kind in type(error).__mro__)
    for pattern, reason in _BY_NAME:
        if re.search(pattern, names):
            return reason.text
    if isinstance(error, OSError) and isinstance(code, int):
        return reasons.FAILED.filled(error=os.strerror(code).lower())
    return reasons.OTHERWISE_UNREADABLE.filled(error=type(error).__name__)
