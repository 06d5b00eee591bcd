"""All stages in order, then the report and a table of figures."""

from lookalike.errors import GateFailed
from lookalike.spark.build_index import build_index, plans
from lookalike.spark.embed import embed
from lookalike.spark.evaluate import evaluate
from lookalike.spark.gallery import unpublished
from lookalike.spark.gate import gate_checks
from lookalike.spark.ingest import ingest
from lookalike.spark.model_id import current_model_id
from lookalike.spark.plan import print_plan
from lookalike.spark.publish import publish
from lookalike.spark.report import write_report
from lookalike.spark.run import Run
from lookalike.spark.similar_items import similar_items


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
