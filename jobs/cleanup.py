"""List the versions and files that nothing needs any more; with --delete, remove them."""

import argparse
import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.operations.cleanup import cleanup
from lookalike.spark.start import start_on_catalog

EXAMPLE = "./spark-submit.sh cleanup --set root=/data/catalog --delete"


def main(argv: Sequence[str]) -> int:
    options = parse(argv)

    def job() -> None:
        run = start_on_catalog(cli.load_settings(options), "cleanup", writes=options.delete)
        days = run.settings.cleanup.retention_days if options.retain is None else options.retain
        cleanup(run, days, options.delete)

    return cli.run_job(job)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    parser.add_argument(
        "--delete", action="store_true", help="remove what is listed; without this option nothing changes"
    )
    parser.add_argument(
        "--retain",
        type=float,
        metavar="DAYS",
        help="keep versions this long after they stopped being live; default: the setting cleanup.retention_days. "
        "Use 0 only while no other job runs and no reader is open",
    )
    options = parser.parse_args(argv)
    if options.retain is not None and options.retain < 0:
        parser.error("--retain must be at least 0")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
