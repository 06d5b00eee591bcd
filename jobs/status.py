"""Print per category what is live, since when, how good, what waits, and what was rejected and why."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.operations.status import print_rejected, print_status
from lookalike.spark.start import start_on_catalog


def main(argv: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    cli.add_settings_options(parser)
    cli.add_selection_options(parser, full=False, retry=False)
    parser.add_argument("--rejected", action="store_true", help="which images were rejected instead, and why")
    options = parser.parse_args(argv)

    def job() -> None:
        run = start_on_catalog(cli.settings(options), "status", writes=False, selection=cli.selection(options))
        (print_rejected if options.rejected else print_status)(run)

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
