"""Match query photos with what is live: a Parquet of queries in, a Delta table of their matches out."""

import sys
from collections.abc import Sequence

from lookalike import cli, files
from lookalike.spark.queries.match_queries import match_queries
from lookalike.spark.start import start_on_catalog


def main(argv: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    cli.add_settings_options(parser)
    parser.add_argument(
        "--queries", required=True, metavar="URI", help="Parquet: query_id, uri, content or embedding, maybe category"
    )
    parser.add_argument("--out", required=True, metavar="URI", help="the Delta table; all that it holds is replaced")
    options = parser.parse_args(argv)

    def job() -> None:
        run = start_on_catalog(cli.settings(options), "match_queries", writes=True)
        match_queries(run, files.absolute(options.queries), files.absolute(options.out))

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
