"""Compare models by query photos: one table of how well each answers, and how sure the differences are."""

import argparse
import sys
from collections.abc import Sequence

from lookalike import cli, files
from lookalike.spark.pages.report import RunSummary, update_report
from lookalike.spark.queries.compare_models import compare_models
from lookalike.spark.start import start


def main(argv: Sequence[str]) -> int:
    options = parse(argv)

    def job() -> None:
        run = start(cli.settings(options), "compare_models", cli.selection(options))
        compare_models(run, files.absolute(options.queries), options.models)
        update_report(run, RunSummary("live"))

    return cli.exit_code(job)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings_options(parser)
    cli.add_selection_options(parser, full=False, retry=False)
    parser.add_argument(
        "--queries", required=True, metavar="URI", help="Parquet with query photos and what is right for each"
    )
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="NAME",
        dest="models",
        help="a model.name, or @FILE for the [model] table of settings in TOML; the first is what others are held "
        "against; repeatable",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
