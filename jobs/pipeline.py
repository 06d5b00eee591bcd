"""Run all stages: manifest in; published catalog, similar items and report out."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.pipeline import pipeline
from lookalike.spark.start import start


def main(argv: Sequence[str]) -> int:
    options = cli.arguments(__doc__, argv)

    def job() -> None:
        run = start(cli.settings(options), "pipeline", cli.selection(options))
        pipeline(run)

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
