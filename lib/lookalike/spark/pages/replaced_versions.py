"""What another model made and was live before: the versions that those of the report were compared with."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from lookalike.spark.tables import Tables, VersionKey, version_key_of


@dataclass(frozen=True)
class Replaced:
    """A version of the report, and the one of another model that it was compared with."""

    category: str
    version: str
    replaced: str
    model_id: str  # of what is replaced


def find_replaced(tables: Tables, shown: Collection[VersionKey], model_id: str) -> list[Replaced]:
    """Those of `shown` that replace another model's, by category.

    Where several models are replaced, only the one of most categories: the page shows two side by side.
    """
    churns = (row for row in tables.rows_of("evaluations", shown) if row["metric"] == "churn")
    compared = {(row["category"], row["against"]): row["version"] for row in churns}
    candidates = [
        Replaced(row["category"], compared[version_key_of(row)], row["version"], row["model_id"])
        for row in sorted(tables.rows_of("shards", compared), key=version_key_of)
        if row["shard"] == 0 and row["model_id"] != model_id
    ]
    sizes = Counter(replaced.model_id for replaced in candidates)
    most = min(sizes, key=lambda name: (-sizes[name], name), default=None)
    return list({r.category: r for r in candidates if r.model_id == most}.values())
