"""All stages in order, then the report and a table of figures."""

from lookalike.errors import GateFailed
from lookalike.spark.catalog.build_index import build_index, plan_versions
from lookalike.spark.catalog.embed import embed
from lookalike.spark.catalog.evaluate import evaluate
from lookalike.spark.catalog.gate import check_gate
from lookalike.spark.catalog.ingest import ingest
from lookalike.spark.catalog.placeholders import find_placeholders
from lookalike.spark.catalog.plan import print_plan
from lookalike.spark.catalog.publish import publish
from lookalike.spark.catalog.similar_items import similar_items
from lookalike.spark.catalog.versions import find_unpublished
from lookalike.spark.pages.report import RunSummary, write_report
from lookalike.spark.run import Run


def pipeline(run: Run) -> None:
    """Manifest in, published catalog and report out. An unchanged category is not touched.

    Raises GateFailed, after the report is written, where a figure is beyond its limit.
    """
    compared = ingest(run)
    embedded = embed(run, compared)
    find_placeholders(run)
    rows = compared.counts | {status: count + compared.counts.get(status, 0) for status, count in embedded.items()}
    versions = find_unpublished(run)
    planned = plan_versions(run, versions)
    print_plan(run, planned)
    if versions:
        build_index(run, planned)
        similar_items(run, versions)
        evaluate(run, versions)
    try:
        published = publish(run, versions)
    except GateFailed:
        write_report(run, RunSummary("gate failed", versions, check_gate(run, versions), rows))
        raise
    write_report(run, RunSummary.of_publish(versions, published, rows))
