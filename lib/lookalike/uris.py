"""Uris as people bring them, cleaned in one way, wherever they come from; the ledger's are compared after the same."""

import re

# Blanks, control signs, NBSP, soft hyphens, and signs without width or for the direction of text.
_UNSEEN = r"[\x00-\x20\x7f-\xa0\xad\u034f\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]"

SCHEME = r"^[A-Za-z][A-Za-z0-9+.-]*:(?=[/\\])"
"""A scheme, which is written in small letters."""

# For Java as for Python, as Spark cleans columns by them. None is undone by another, and each leaves its result alone.
AROUND = rf"^{_UNSEEN}+|{_UNSEEN}+$"
FORMS = (
    (r"^(?i:http):[/\\]*", "http://"),  # browsers take any number of slashes, and backslashes for them
    (r"^(?i:https):[/\\]*", "https://"),
    (r"^//(?=[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}(?::\d+)?/)", "https://"),  # as pages of the web write it
    (r"^file:(?://(?i:localhost)?(?=/)|(?=/(?!/)))", "file://"),
)
"""Ways to write the beginning of a uri, and the one that stands for them."""


_TO_SMALL = re.compile(SCHEME)
_TO_NOTHING = re.compile(AROUND)
_TO_FORMS = [(re.compile(pattern), form) for pattern, form in FORMS]


def clean_uri(text: str) -> str:
    """`text` without what cannot be seen around it, and with its beginning in one form; what follows that stays.

    Percent signs stay as they are: `fetch` knows whether those of a file's uri are part of its name.
    """
    uri = _TO_SMALL.sub(lambda scheme: scheme[0].lower(), _TO_NOTHING.sub("", text))
    for pattern, form in _TO_FORMS:
        uri = pattern.sub(form, uri)
    return uri
