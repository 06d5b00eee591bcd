"""The report's placeholders: for how many products they stand, and those that stand for the most."""

from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F

from lookalike.report import page as pages
from lookalike.report.thumbnails import make_thumbnail
from lookalike.spark.catalog.gallery import select_embedded
from lookalike.spark.catalog.placeholders import count_placeholders
from lookalike.spark.pages.pictures import read_contents
from lookalike.spark.run import Run

_SHOWN = 12
_EXAMPLES = 5
_PICTURE_PX = 240


def gather_placeholders(run: Run) -> pages.Placeholders | None:
    """None where there is none."""
    products = run.tables.read("placeholders")
    sizes = _count_products(products)
    if not sizes:
        return None
    images = _read_example_images(run, products.where(F.col("placeholder").isin(*sizes)))
    pictures = {row["placeholder"]: row for row in reversed(images)}
    contents = read_contents(run, {row["image_id"]: row for row in pictures.values()})
    titles: dict[str, dict[str, str | None]] = {}
    for row in images:
        titles.setdefault(row["placeholder"], {}).setdefault(row["product_id"], row["title"])
    shown = tuple(
        pages.Placeholder(
            picture=make_thumbnail(contents.get(pictures[name]["image_id"], b""), _PICTURE_PX),
            products=size,
            examples=tuple(pages.PlaceholderProduct(*product) for product in titles[name].items()),
        )
        for name, size in sizes.items()
        if name in pictures  # else its products left the catalog since
    )
    return pages.Placeholders(*count_placeholders(products), shown, run.settings.similar_items.leave_out_placeholders)


def _count_products(products: DataFrame) -> dict[str, int]:
    """By placeholder, of those with the most products."""
    sizes = products.groupBy("placeholder").count().orderBy(F.desc("count"), "placeholder").limit(_SHOWN)
    return {row["placeholder"]: row["count"] for row in sizes.collect()}


def _read_example_images(run: Run, products: DataFrame) -> list[Row]:
    """Ledger rows of a few products of each placeholder, with its name; those of its own bytes first."""
    by_hash = Window.partitionBy("placeholder").orderBy(F.xxhash64("product_id"), "product_id")
    examples = products.withColumn("place", F.row_number().over(by_hash)).where(F.col("place") <= _EXAMPLES)
    images = select_embedded(run.tables.read("images"))
    named = images.join(F.broadcast(examples.select("product_id", "placeholder")), "product_id")
    is_other = F.col("content_hash") != F.col("placeholder")
    return named.orderBy(is_other, "product_id", "image_id").collect()
