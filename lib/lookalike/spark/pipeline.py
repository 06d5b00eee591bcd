"""All stages in order, then the report and a table of figures."""

from lookalike.errors import GateFailed
from lookalike.spark.catalog.build_index import build_index, plans
from lookalike.spark.catalog.embed import embed
from lookalike.spark.catalog.evaluate import evaluate
from lookalike.spark.catalog.gate import gate_checks
from lookalike.spark.catalog.ingest import ingest
from lookalike.spark.catalog.model_id import current_model_id
from lookalike.spark.catalog.plan import print_plan
from lookalike.spark.catalog.publish import publish
from lookalike.spark.catalog.similar_items import similar_items
from lookalike.spark.catalog.versions import unpublished
from lookalike.spark.pages.report import write_report
from lookalike.spark.run import Run


def pipeline(run: Run) -> None:
    """Manifest in, published catalog and report out. An unchanged category is not touched.

    Raises GateFailed, after the report is written, where a figure is beyond its limit.
    """
    model_id = current_model_id(run)
    ingest(run, model_id)
    embed(run, model_id)
    versions = unpublished(run, model_id)
    planned = plans(run, versions, model_id)
    print_plan(run, planned)
    if versions:
        build_index(run, planned, model_id)
        similar_items(run, versions)
        evaluate(run, versions, model_id)
    try:
        checks = publish(run, versions, model_id)
    except GateFailed:
        write_report(run, versions, model_id, gate_checks(run, versions), gate_failed=True)
        raise
    write_report(run, versions, model_id, checks)
