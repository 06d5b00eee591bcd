"""Figures of what queries found: per group of queries a mean with its interval; and how a terminal shows them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from lookalike.formats import share
from lookalike.kernels.evaluation.bootstrap import share_intervals
from lookalike.spark.run import console

RECALL_KS = (1, 5, 10, 20)
METRICS = (*(f"recall@{k}" for k in RECALL_KS), "map@r", "ndcg@10")
RELEVANT = ("product", "category")
ALL = "all"
GROUPINGS = (ALL, "category", "attribute")
LEAST_QUERIES = 20
"""An attribute's value with fewer queries gets no figures of its own."""

LINES = 60


def values_of(answers: pd.DataFrame) -> NDArray[np.float64]:
    """(metrics, n): each of METRICS for each row of `read_answers`."""
    rank = answers["rank"].fillna(np.inf).to_numpy(np.float64)
    return np.stack([*(rank <= k for k in RECALL_KS), answers["map@r"], answers["ndcg@10"]]).astype(np.float64)


def clusters_of(answers: pd.DataFrame) -> NDArray[Any]:
    """(n,) what is drawn anew together: the queries of a product, or a query of no product by itself."""
    products = "product " + answers["product_id"]
    return products.fillna("query " + answers["query_id"]).to_numpy(str)


def compute_figures(answers: pd.DataFrame, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of `query_evaluations`, of each kind of relevance for all queries and for each group of them."""
    for relevant, ours in answers.groupby("relevant"):
        values, clusters = values_of(ours), clusters_of(ours)
        for grouped_by, group, places in _groups(ours):
            some = values[:, places]
            low, high = share_intervals(some, clusters[places], seed)
            means = some.mean(axis=1)
            for i, metric in enumerate(METRICS):
                row = {"relevant": relevant, "grouped_by": grouped_by, "group": group, "metric": metric}
                ends = {"low": _known(low[i]), "high": _known(high[i])}
                yield {**row, "value": float(means[i]), "n": len(places), **ends}


def _known(end: float) -> float | None:
    return None if np.isnan(end) else float(end)


def _groups(answers: pd.DataFrame) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """(grouped_by, group, places of its queries)."""
    yield ALL, ALL, np.arange(len(answers))
    for category, places in answers.groupby("category").indices.items():
        yield "category", str(category), np.asarray(places)
    pairs = [
        (f"{name}={value}", place)
        for place, attributes in enumerate(answers["attributes"])
        for name, value in (attributes or {}).items()
    ]
    by_value = pd.DataFrame(pairs, columns=["group", "place"]).groupby("group")["place"]
    for group, some in by_value:
        if len(some) >= LEAST_QUERIES:
            yield "attribute", str(group), some.to_numpy(np.int64)


Key = tuple[str, str, str]  # relevant, grouped_by, group


def group_figures(figures: Sequence[Any]) -> dict[Key, dict[str, Any]]:
    """Rows of `query_evaluations` by group and metric: all queries first, then groups with many queries."""
    groups: dict[Key, dict[str, Any]] = {}
    for row in figures:
        groups.setdefault((row["relevant"], row["grouped_by"], row["group"]), {})[row["metric"]] = row

    def place(key: Key) -> tuple[int, int, int, str]:
        relevant, grouped_by, group = key
        return GROUPINGS.index(grouped_by), RELEVANT.index(relevant), -groups[key][METRICS[0]]["n"], group

    return {key: groups[key] for key in sorted(groups, key=place)}


def print_figures(title: str, figures: Sequence[Mapping[str, Any]]) -> None:
    """Rows of `query_evaluations` on stdout, a line for each group; of more than LINES the first."""
    table = Table(title=escape(title))
    for name in ("right is the same", "queries", "n", *METRICS):
        table.add_column(name, justify="right" if name in ("n", *METRICS) else "left")
    groups = group_figures(figures)
    for (relevant, grouped_by, group), by_metric in list(groups.items())[:LINES]:
        named = group if grouped_by == ALL else f"{grouped_by} {group}"
        table.add_row(
            relevant, escape(named), f"{by_metric[METRICS[0]]['n']:,}", *(format_figure(by_metric[m]) for m in METRICS)
        )
    console().print(table)
    if len(groups) > LINES:
        console().print(f"and {len(groups) - LINES:,} more groups in the table query_evaluations")


def format_figure(row: Mapping[str, Any]) -> str:
    """A figure with its interval."""
    if row["low"] is None:
        return share(row["value"])
    return f"{share(row['value'])} ({share(row['low'])}\N{EN DASH}{share(row['high'])})"
