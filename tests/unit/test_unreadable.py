"""The reason for which a file could not be read: short, plain, and without a part of the uri."""

import errno
import ssl

import aiohttp
import botocore.exceptions
import pytest

from lookalike import files, reasons
from lookalike.reasons import Retried
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
        (OSError(errno.ESTALE, "x"), reasons.SERVER_ERROR.text),
        (ssl.SSLCertVerificationError("expired"), reasons.NO_SECURE_CONNECTION.text),
        (botocore.exceptions.SSLError(endpoint_url="s3", error="x"), reasons.NO_SECURE_CONNECTION.text),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
    assert reason in reasons.TRANSIENT
    assert reason_of(FileNotFoundError()) not in reasons.TRANSIENT


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (botocore.exceptions.NoCredentialsError(), reasons.NO_CREDENTIALS.text),
        (botocore.exceptions.ParamValidationError(report="x"), reasons.MALFORMED_URI.text),
        (aiohttp.InvalidURL("http://x"), reasons.MALFORMED_URI.text),
        (aiohttp.http_exceptions.BadStatusLine("x"), reasons.MALFORMED_ANSWER.text),
        (IsADirectoryError(errno.EISDIR, "x"), reasons.NOT_A_FILE.text),
        (NotADirectoryError(errno.ENOTDIR, "x"), reasons.NOT_FOUND.text),
        (OSError(errno.ENOSPC, "x"), "unreadable uri: the system says: no space left on device"),
        (OSError("secret"), "unreadable uri: the store's client failed with OSError"),
        (KeyError("secret"), "unreadable uri: the store's client failed with KeyError"),
    ],
)
def test_what_is_left_is_in_plain_words(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
    assert reason not in reasons.TRANSIENT


def test_all_that_could_not_be_read_begins_alike() -> None:
    """By this `--retry-rejected` knows it, in ledgers of any release."""
    unread = [r for r in reasons.READING if r.retried in (Retried.AT_ONCE, Retried.EACH_RUN)]
    assert all(r.text.startswith("unreadable uri: ") for r in unread)
