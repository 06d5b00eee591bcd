"""The reason for which a file could not be read: short, plain, and without a part of the uri."""

import errno

import aiohttp
import botocore.exceptions
import pytest

from lookalike import files, reasons
from lookalike.unreadable import reason_of


def test_reasons_hold_no_part_of_the_uri() -> None:
    with pytest.raises(FileNotFoundError) as error:
        files.read_bytes("/secret-token/none.jpg")
    assert reason_of(error.value) == reasons.NOT_FOUND.text
    assert "secret" not in reason_of(RuntimeError("secret-token"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), reasons.TIMED_OUT.text),
        (aiohttp.ServerTimeoutError(), reasons.TIMED_OUT.text),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="s3"), reasons.TIMED_OUT.text),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="s3"), reasons.NO_CONNECTION.text),
        (aiohttp.ServerDisconnectedError(), reasons.NO_CONNECTION.text),
        (aiohttp.ClientPayloadError(), reasons.NO_CONNECTION.text),
        (ConnectionResetError(), reasons.NO_CONNECTION.text),
        (OSError(errno.EHOSTUNREACH, "x"), reasons.NO_CONNECTION.text),
        (OSError(errno.EBUSY, "SlowDown"), reasons.SERVER_ERROR.text),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
    assert reason in reasons.TRANSIENT
    assert reason_of(FileNotFoundError()) not in reasons.TRANSIENT
