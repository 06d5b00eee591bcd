"""Open an export: find out what kind of file it is, and how its text is encoded."""

import codecs

from lookalike.errors import ManifestInvalid
from lookalike.feeds.delimited import read_delimited
from lookalike.feeds.google_xml import read_google_xml
from lookalike.feeds.json_lines import read_json_lines
from lookalike.feeds.records import Export
from lookalike.feeds.text import UTF_8, Encoding, detect_encoding, open_text

_HEAD_CHARS = 4096


def open_export(source: str, encoding: str | None = None) -> Export:
    """The export at `source`, a path or URI: CSV, TSV, XML or JSON Lines, packed or not. Raises ManifestInvalid."""
    chosen = Encoding(_check_encoding(encoding)) if encoding else detect_encoding(source)
    with open_text(source, chosen) as text:
        head = text.read(_HEAD_CHARS).lstrip().lower()
    if head.startswith(("<!doctype html", "<html")):
        raise ManifestInvalid(f"{source}: a web page, not an export; see whether its download asks for a login")
    if head.startswith("<"):
        return read_google_xml(source)
    if head.startswith("[") and head[1:].lstrip().startswith("{"):
        raise ManifestInvalid(f"{source}: a JSON array; write one object a line: jq -c '.[]' {source}")
    if head.startswith("{"):
        return read_json_lines(source, chosen)
    export = read_delimited(source, chosen)
    if not chosen.is_guess:
        return export
    note = f"{source} is not UTF-8 and was read as {chosen.name}; if letters are wrong, name it with --encoding"
    return Export(source, export.columns, export.read, export.repeated, (note,))


def _check_encoding(name: str) -> str:
    try:
        known = codecs.lookup(name).name
    except LookupError as error:
        raise ManifestInvalid(f"--encoding {name}: not known; write it as in --encoding cp1252") from error
    return UTF_8 if known == "utf-8" else known
