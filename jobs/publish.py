"""Check every changed category at the gate, then make all of them live at once."""

import argparse
import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.catalog.ingest import check_ingested
from lookalike.spark.catalog.model_id import check_embedded_by_run_model
from lookalike.spark.catalog.publish import publish
from lookalike.spark.catalog.versions import find_unpublished
from lookalike.spark.pages.report import RunSummary, update_report
from lookalike.spark.start import start

EXAMPLE = "./spark-submit.sh publish --set root=/data/catalog --category women/dresses"


def main(argv: Sequence[str]) -> int:
    options = parse(argv)

    def job() -> None:
        run = start(cli.load_settings(options), "publish", cli.read_selection(options))
        check_ingested(run)
        check_embedded_by_run_model(run)
        versions = find_unpublished(run, options.force)
        published = publish(run, versions, options.why)
        print(f"{published.published:,} categories published, {published.withdrawn:,} withdrawn")
        update_report(run, RunSummary.of_publish(versions, published))

    return cli.run_job(job)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    cli.add_selection_options(parser, full=True, retry=False)
    parser.add_argument(
        "--force",
        action="store_true",
        help="publish even if the gate fails or the version was rolled back; needs --why",
    )
    parser.add_argument("--why", metavar="TEXT", help="the reason for --force, which is recorded with your name")
    options = parser.parse_args(argv)
    if options.force != bool((options.why or "").strip()):
        parser.error("--force and --why TEXT go together: say why the gate is overruled")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
