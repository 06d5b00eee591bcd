"""Make versions live again that were live before: of one category, or of all that a run changed."""

import argparse
import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.selection import Selection
from lookalike.spark.operations.rollback import rollback, rollback_run
from lookalike.spark.pages.report import RunSummary, update_report
from lookalike.spark.start import start_on_catalog


def main(argv: Sequence[str]) -> int:
    options = parse(argv)

    def job() -> None:
        chosen = Selection.of(options.categories)
        run = start_on_catalog(cli.settings(options), "rollback", writes=True, selection=chosen)
        if options.run:
            undone = rollback_run(run, options.run)
            model_id = undone.model_id
            print(f"run {options.run}: {undone}")
        else:
            (category,) = chosen.categories
            version, model_id = rollback(run, category, options.to)
            print(f"{category}: version {version} is live")
        update_report(run, RunSummary("rolled back", live_model_id=model_id))

    return cli.exit_code(job)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings_options(parser)
    parser.add_argument(
        "--category",
        action="append",
        default=[],
        metavar="CATEGORY",
        dest="categories",
        help="as history names it; with --run only these and all below them, else one",
    )
    parser.add_argument("--to", metavar="VERSION", help="of one category; default: what the live version replaced")
    parser.add_argument("--run", metavar="RUN", help="undo what this run changed in what is live")
    options = parser.parse_args(argv)
    if not options.run and len(options.categories) != 1:
        parser.error("give one --category, as history names it, or the --run to undo")
    if options.run and options.to:
        parser.error("--to VERSION goes with one --category, not with --run")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
