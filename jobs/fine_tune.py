"""Train the model on the shop's own catalog and clicks, and write it as a file for the setting model.name."""

import sys
from collections.abc import Sequence

from lookalike import cli, files
from lookalike.spark.start import start

EXAMPLE = "./spark-submit.sh fine_tune --set root=/data/catalog --out /data/models/ours.safetensors"


def main(argv: Sequence[str]) -> int:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    cli.add_selection_options(parser, full=False, retry=False)
    parser.add_argument("--out", required=True, metavar="FILE", help="write the new model to this .safetensors file")
    options = parser.parse_args(argv)

    def job() -> None:
        out = cli.resolve_model_file(options.out)
        run = start(cli.load_settings(options), "fine_tune", cli.read_selection(options))
        from lookalike.spark.training.fine_tune import fine_tune  # torch, after the JVM has started

        print(f"model {fine_tune(run, out)}: --set model.name={files.redact(out)}")

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
