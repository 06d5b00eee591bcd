"""Categories as conditions on rows."""

from collections.abc import Collection
from functools import reduce
from operator import or_

from pyspark.sql import Column
from pyspark.sql import functions as F

from lookalike.selection import Selection

FEW = 500
"""So many values can stand in a condition as literals."""

_BUCKETS = 64


def is_selected(selection: Selection) -> Column:
    """Whether a row's `category` is the selection's: one of its paths, or below one. Null where the row has none.

    `women` covers women/dresses, but not womenswear.
    """
    category = F.col("category")
    each = [(category == path) | category.startswith(f"{path}/") for path in selection.categories]
    return reduce(or_, each) if each else F.lit(True)


def is_among(categories: Collection[str]) -> Column:
    """Whether a row's `category` may be one of these; always true where they are many.

    For a join on `category` that follows: by these literals Delta leaves out the files that hold none of them.
    """
    return F.col("category").isin(*categories) if len(categories) <= FEW else F.lit(True)


def to_bucket(category: Column) -> Column:
    """The partition of `images` in which rows of a category stand."""
    return F.pmod(F.xxhash64(category), F.lit(_BUCKETS)).cast("int")


def is_in_bucket_of(categories: Collection[str]) -> Column:
    """`is_among`, of rows of `images`: they stand where the category's bucket is, or in none."""
    if len(categories) > FEW:
        return F.lit(True)
    places = F.col("bucket").isNull() | F.col("bucket").isin(*[to_bucket(F.lit(c)) for c in categories])
    return is_among(categories) & places
