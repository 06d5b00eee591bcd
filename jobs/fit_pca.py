"""Write a model of fewer dimensions, by a PCA of the catalog's embeddings: its index is smaller and faster."""

import sys
from collections.abc import Sequence

from lookalike import cli, files
from lookalike.spark.start import start
from lookalike.spark.training.fit_pca import fit_pca

EXAMPLE = "./spark-submit.sh fit_pca --set root=/data/catalog --dim 128 --out /data/models/small.safetensors"


def main(argv: Sequence[str]) -> int:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    cli.add_selection_options(parser, full=False, retry=False)
    parser.add_argument("--dim", type=int, required=True, metavar="N", help="dimensions of the new model")
    parser.add_argument(
        "--whitening",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="strength of the whitening, 0 to 1. 0: each axis keeps its weight; 1: all axes weigh the same; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="write the new model to this .safetensors file, for the setting model.name",
    )
    options = parser.parse_args(argv)

    def job() -> None:
        out = cli.resolve_model_file(options.out)
        run = start(cli.load_settings(options), "fit_pca", cli.read_selection(options))
        print(f"model {fit_pca(run, options.dim, options.whitening, out)}: --set model.name={files.redact(out)}")

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
