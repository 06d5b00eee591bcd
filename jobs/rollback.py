"""Make earlier versions live again: of one category, or of all categories that a run changed."""

import argparse
import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.selection import Selection
from lookalike.spark.operations.rollback import rollback, rollback_run
from lookalike.spark.pages.report import RunSummary, update_report
from lookalike.spark.start import start_on_catalog

EXAMPLE = "./spark-submit.sh rollback --set root=/data/catalog --category women/dresses"


def main(argv: Sequence[str]) -> int:
    options = parse(argv)

    def job() -> None:
        chosen = Selection.of(options.categories)
        run = start_on_catalog(cli.load_settings(options), "rollback", writes=True, selection=chosen)
        if options.run:
            undone = rollback_run(run, options.run)
            model_id = undone.model_id
            print(f"run {options.run}: {undone}")
        else:
            (category,) = chosen.categories
            version, model_id = rollback(run, category, options.to)
            print(f"{category}: version {version} is live")
        update_report(run, RunSummary("rolled back", live_model_id=model_id))

    return cli.run_job(job)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    parser.add_argument(
        "--category",
        action="append",
        default=[],
        metavar="CATEGORY",
        dest="categories",
        help="the category, as history names it; with --run, undo only it and those below it; repeatable",
    )
    parser.add_argument(
        "--to",
        metavar="VERSION",
        help="make this version of the category live; default: the one that the live version replaced",
    )
    parser.add_argument("--run", metavar="RUN", help="undo what this run published or withdrew")
    options = parser.parse_args(argv)
    if not options.run and len(options.categories) != 1:
        parser.error("give one --category, as history names it, or the --run to undo")
    if options.run and options.to:
        parser.error("--to VERSION goes with one --category, not with --run")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
