"""Fit the predictor of a query photo's category, and the probability that a match shows the same product."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.start import start_on_catalog
from lookalike.spark.training.fit_categories import fit_categories

EXAMPLE = "./spark-submit.sh fit_categories --set root=/data/catalog"


def main(argv: Sequence[str]) -> int:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    options = parser.parse_args(argv)
    return cli.run_job(
        lambda: fit_categories(start_on_catalog(cli.load_settings(options), "fit_categories", writes=True))
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
