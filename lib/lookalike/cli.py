"""What all jobs share: their options, and how they end."""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lookalike import config, files, log
from lookalike.config import Settings
from lookalike.errors import ConfigInvalid, foreseen
from lookalike.selection import Selection

INTERRUPTED = 130


def arguments(
    doc: str | None, argv: Sequence[str], example: str, full: bool = True, retry: bool = True
) -> argparse.Namespace:
    """Parse the options of a job that works on the catalog: its settings, and what part of the catalog it is for.

    `full`, `retry`: whether the job takes `--full`, `--retry-rejected`.
    """
    options = parser(doc, example)
    add_settings_options(options)
    add_selection_options(options, full, retry)
    return options.parse_args(argv)


def parser(doc: str | None, example: str) -> argparse.ArgumentParser:
    """A job's parser, which calls the job what users call it. `example` is a whole command, shown below the options."""
    return argparse.ArgumentParser(
        prog=f"./spark-submit.sh {Path(sys.argv[0]).stem}",
        description=doc,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the example on one line
    )


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="read settings from this TOML file, see docs/settings.md; default: conf/local.toml, or conf/cluster.toml "
        "with --master of a cluster",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change one setting, such as root=/data/out; wins over the file; repeatable",
    )


def add_selection_options(parser: argparse.ArgumentParser, full: bool, retry: bool) -> None:
    parser.set_defaults(full=False, retry=None)
    parser.add_argument(
        "--category",
        action="append",
        default=[],
        metavar="PATH",
        dest="categories",
        help="work only on this category and those below it; repeatable; default: all",
    )
    if full:
        parser.add_argument(
            "--full", action="store_true", help="rebuild unchanged categories too; embeddings are reused"
        )
    if retry:
        parser.add_argument(
            "--retry-rejected",
            nargs="?",
            const="unreadable",
            choices=("unreadable", "all"),
            dest="retry",
            help="work only on images that were rejected because their uri could not be read; all: on every rejected "
            "image",
        )


def selection(options: argparse.Namespace) -> Selection:
    """What part of the catalog the options name."""
    return Selection.of(options.categories, options.full, options.retry)


def settings(options: argparse.Namespace) -> Settings:
    """Settings of the options, with `root`, `manifest` and a model file made absolute."""
    loaded = config.load(options.config, options.overrides)
    absolute: dict[str, Any] = {"root": files.absolute(loaded.root)}
    if loaded.manifest:
        absolute["manifest"] = files.absolute(loaded.manifest)
    if loaded.model.is_file:
        absolute["model"] = loaded.model.model_copy(update={"name": files.absolute(loaded.model.name)})
    return loaded.model_copy(update=absolute)


def model_file(out: str) -> str:
    """Where a new model file shall stand, made absolute. Raises ConfigInvalid."""
    if not out.endswith(config.MODEL_FILE_SUFFIX):
        raise ConfigInvalid(f"--out {out}: name it so that it ends in {config.MODEL_FILE_SUFFIX}")
    return files.absolute(out)


def exit_code(job: Callable[[], None]) -> int:
    """Run `job`; a failure becomes one message on stderr and a code: 0 done, 2 bad input, 3 gate, 130 stopped, else 1.

    Only of a failure that nobody foresaw the stack traces are printed. No secret in a uri or a setting is.
    """
    code, message = _ended(job)
    log.event("run ended", exit_code=code)
    log.end()
    if message:
        print(files.redacted(message), file=sys.stderr)
    return code


def _ended(job: Callable[[], None]) -> tuple[int, str]:
    """The exit code, and what there is to say."""
    try:
        job()
    except BaseException as error:
        if _was_stopped(error):
            return INTERRUPTED, "stopped; finished work is kept, run the same command again to go on"
        if known := foreseen(error):
            return known.exit_code, f"error: {known}"
        return 1, traceback.format_exc()
    return 0, ""


def _was_stopped(error: BaseException | None) -> bool:
    """Whether it began with Ctrl-C, which ends the JVM too, so that whatever tidies up after it fails as well."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
