"""Compare how well models answer query photos, with the uncertainty of each difference."""

import argparse
import sys
from collections.abc import Sequence

from lookalike import cli, files
from lookalike.spark.pages.report import RunSummary, update_report
from lookalike.spark.queries.compare_models import compare_models
from lookalike.spark.start import start

EXAMPLE = "./spark-submit.sh compare_models --queries queries.parquet --model default --model timm/resnet50"


def main(argv: Sequence[str]) -> int:
    options = parse(argv)

    def job() -> None:
        run = start(cli.load_settings(options), "compare_models", cli.read_selection(options))
        compare_models(run, files.absolute(options.queries), options.models)
        update_report(run, RunSummary("live"))

    return cli.run_job(job)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    cli.add_selection_options(parser, full=False, retry=False)
    parser.add_argument(
        "--queries", required=True, metavar="URI", help="Parquet file of query photos and their right answers"
    )
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="NAME",
        dest="models",
        help="a value of model.name, or @FILE for the [model] table of a settings file; repeatable; the others are "
        "compared with the first",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
