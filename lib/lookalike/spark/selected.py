"""A selection as conditions on rows."""

from functools import reduce
from operator import or_

from pyspark.sql import Column
from pyspark.sql import functions as F

from lookalike.selection import Selection


def covered(selection: Selection) -> Column:
    """Whether a row's `category` is the selection's: one of its paths, or below one. Null where the row has none.

    `women` covers women/dresses, but not womenswear.
    """
    category = F.col("category")
    each = [(category == path) | category.startswith(f"{path}/") for path in selection.categories]
    return reduce(or_, each) if each else F.lit(True)
