"""Find the products of the live catalog that match query photos, and write them to a Delta table."""

import sys
from collections.abc import Sequence

from lookalike import cli, files
from lookalike.spark.queries.match_queries import match_queries
from lookalike.spark.start import start_on_catalog

EXAMPLE = "./spark-submit.sh match_queries --set root=/data/catalog --queries queries.parquet --out /data/matches"


def main(argv: Sequence[str]) -> int:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    parser.add_argument(
        "--queries",
        required=True,
        metavar="URI",
        help="Parquet file with query_id, one of uri, content and embedding, and optionally category",
    )
    parser.add_argument(
        "--out", required=True, metavar="URI", help="write the matches to this Delta table; what it held is replaced"
    )
    options = parser.parse_args(argv)

    def job() -> None:
        run = start_on_catalog(cli.load_settings(options), "match_queries", writes=True)
        match_queries(run, files.absolute(options.queries), files.absolute(options.out))

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
