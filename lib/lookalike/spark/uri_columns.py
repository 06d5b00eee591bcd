"""Uris of whole columns, cleaned as `lookalike.uris` cleans one."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from lookalike import uris


def clean_uris(uri: Column) -> Column:
    """`uris.clean_uri` of each value; null where nothing is left. No Python worker is needed for it."""
    text = F.regexp_replace(uri, uris.AROUND, "")
    text = F.regexp_replace(F.regexp_replace(text, uris.QUOTED, "$1"), uris.AROUND, "")
    scheme = F.regexp_extract(text, uris.SCHEME, 0)
    text = F.concat(F.lower(scheme), F.regexp_replace(text, uris.SCHEME, ""))
    text = F.when(text.rlike(uris.BACKSLASHED), F.translate(text, "\\", "/")).otherwise(text)
    for pattern, form in uris.FORMS:
        text = F.regexp_replace(text, pattern, form)
    return F.nullif(text, F.lit(""))
