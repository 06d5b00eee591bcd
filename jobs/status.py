"""Print for each category what is live, its quality, what waits to be published, and what was rejected."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.operations.status import print_rejected, print_status
from lookalike.spark.start import start_on_catalog

EXAMPLE = "./spark-submit.sh status --set root=/data/catalog --rejected"


def main(argv: Sequence[str]) -> int:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    cli.add_selection_options(parser, full=False, retry=False)
    parser.add_argument("--rejected", action="store_true", help="list the rejected images and their reasons instead")
    options = parser.parse_args(argv)

    def job() -> None:
        run = start_on_catalog(
            cli.load_settings(options), "status", writes=False, selection=cli.read_selection(options)
        )
        (print_rejected if options.rejected else print_status)(run)

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
