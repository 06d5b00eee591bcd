"""Why a file could not be read: the errors of our own readers, and the reason for any error of any file system."""

import errno
import re

from lookalike import reasons
from lookalike.reasons import Reason

_BUSY = frozenset({errno.EAGAIN, errno.EBUSY, errno.EIO})
_NO_ROUTE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})


class Refused(RuntimeError):
    """A file that is not read, for a reason that the error carries."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


class ServerFailed(OSError):
    """A server answered that it can't answer now."""


def reason_of(error: BaseException) -> str:
    """The text of the reason: short, the same for every file, and free of what the uri may hold."""
    if isinstance(error, Refused):
        return error.reason.text
    if isinstance(error, FileNotFoundError):
        return reasons.NOT_FOUND.text
    if isinstance(error, PermissionError):
        return reasons.PERMISSION_DENIED.text
    code = getattr(error, "errno", None)
    # By their names, as every client of a store has classes of its own, which nothing here should have to import.
    names = " ".join(kind.__name__ for kind in type(error).__mro__)
    if "Timeout" in names:
        return reasons.TIMED_OUT.text
    if code in _NO_ROUTE or re.search(r"Connect|Disconnect|Payload", names):
        return reasons.NO_CONNECTION.text
    if code in _BUSY or isinstance(error, ServerFailed):
        return reasons.SERVER_ERROR.text
    return reasons.OTHERWISE_UNREADABLE.filled(error=type(error).__name__)
