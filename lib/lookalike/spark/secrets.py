"""Uris as tables hold them: without what would open the image to whoever reads the table."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from lookalike.files import CREDENTIALS, SECRET_WORDS

_SCHEME = r"^(?!(?i:abfss?|wasbs?)://[^/@?#:]*@)([A-Za-z][A-Za-z0-9+.-]*://)"
_SECRET = (
    rf"[^=&]*(?:{SECRET_WORDS}|key|key(?:[-_]?pair)?[-_]?id|accessid|session[^=&]*)|"
    r"sig|policy|pass|auth|jwt|hmac|hdnea|hdnts"
)
_SIGNED = rf"(?i)[?#](?:.*&)?(?:{_SECRET})=.*$"
WITHHELD = "…"


def withhold_secrets(uri: Column) -> Column:
    """`uri` without user and password, and without its query where that is signed, each left out as an ellipsis.

    A signed uri differs each day though its image does not; so what is stored stays the same.
    """
    plain = F.regexp_replace(uri, _SCHEME + CREDENTIALS, f"$1{WITHHELD}@")
    return F.regexp_replace(plain, _SIGNED, f"?{WITHHELD}")


def is_withheld(stored: Column) -> Column:
    """Whether a stored uri lacks something that reading needs, so that the manifest's must be taken."""
    return stored.contains(WITHHELD)
