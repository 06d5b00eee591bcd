"""Measure the quality of every changed category; with --queries, measure the answers to query photos instead."""

import argparse
import sys
from collections.abc import Sequence

from lookalike import cli, files
from lookalike.spark.catalog.evaluate import evaluate
from lookalike.spark.catalog.model_id import check_embedded_by_run_model
from lookalike.spark.catalog.versions import find_unpublished
from lookalike.spark.pages.report import RunSummary, update_report
from lookalike.spark.queries.evaluate_queries import evaluate_queries
from lookalike.spark.start import start

EXAMPLE = "./spark-submit.sh evaluate --set root=/data/catalog --queries queries.parquet"


def main(argv: Sequence[str]) -> int:
    options = parse(argv)

    def job() -> None:
        run = start(cli.load_settings(options), "evaluate", cli.read_selection(options))
        check_embedded_by_run_model(run, of_all=bool(options.queries))
        if options.queries:
            evaluate_queries(run, files.absolute(options.queries))
            update_report(run, RunSummary("live"))
        else:
            evaluate(run, find_unpublished(run))

    return cli.run_job(job)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    cli.add_selection_options(parser, full=True, retry=False)
    parser.add_argument(
        "--queries",
        metavar="URI",
        help="Parquet file of query photos and their right answers",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
