"""Uris as people bring them, cleaned in one way, wherever they come from; the ledger's are compared after the same."""

import re

# Blanks, control signs, NBSP, soft hyphens, fillers, signs without width, for the direction of text or for how the sign
# before them looks, and tags. Java and Python have no common escape for the last two ranges.
_UNSEEN = (
    r"[\x00-\x20\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f"
    r"\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0" + "\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
_QUOTES = "[\u00ab\u00bb\u2018-\u201f\u2039\u203a]"
_LETTER = r"[A-Za-z\u00a1-\uffff]"
_LABEL = r"[A-Za-z0-9\u00a1-\uffff-]+"

SCHEME = r"^[A-Za-z][A-Za-z0-9+.-]*:(?=[/\\])"
"""A scheme, which is written in small letters."""

# For Java as for Python, as Spark cleans columns by them. None is undone by another, and each leaves its result alone.
AROUND = rf"^{_UNSEEN}+|{_UNSEEN}+$"
QUOTED = rf"""(?s)^(?:"(?=.*"$)|'(?=.*'$)|<(?=.*>$)|{_QUOTES}(?=.*{_QUOTES}$))(.*).$"""
"""A text in quotes, or between `<` and `>`, with what is inside as the group."""

BACKSLASHED = r"^file:\\"
"""A file's uri with backslashes for slashes."""

FORMS = (
    (r"^(?i:http):[/\\]*", "http://"),  # browsers take any number of slashes, and backslashes for them
    (r"^(?i:https):[/\\]*", "https://"),
    (rf"^//(?={_LABEL}(?:\.{_LABEL})*\.{_LETTER}{{2,}}(?::\d+)?[/?])", "https://"),  # as pages of the web write it
    (r"^file:(?://(?i:localhost)?(?=/)|(?=/(?!/)))", "file://"),
)
"""Ways to write the beginning of a uri, and the one that stands for them."""

_TO_SMALL = re.compile(SCHEME)
_TO_NOTHING = re.compile(AROUND)
_TO_INSIDE = re.compile(QUOTED)
_TO_SLASHES = re.compile(BACKSLASHED)
_TO_FORMS = [(re.compile(pattern), form) for pattern, form in FORMS]


def clean_uri(text: str) -> str:
    """`text` without what cannot be seen and quotes around it, and with its beginning in one form.

    What follows that stays, but for the backslashes of a file's uri that begins with some. Percent signs stay as they
    are: `fetch` knows whether those of a file's uri are part of its name.
    """
    uri = _TO_NOTHING.sub("", _TO_INSIDE.sub(r"\1", _TO_NOTHING.sub("", text)))
    uri = _TO_SMALL.sub(lambda scheme: scheme[0].lower(), uri)
    if _TO_SLASHES.match(uri):
        uri = uri.replace("\\", "/")
    for pattern, form in _TO_FORMS:
        uri = pattern.sub(form, uri)
    return uri
