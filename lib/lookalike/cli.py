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


def parse_arguments(
    doc: str | None, argv: Sequence[str], example: str, full: bool = True, retry: bool = True, complete: bool = False
) -> argparse.Namespace:
    """Parse the options of a job that works on the catalog: its settings, and what part of the catalog it is for.

    `full`, `retry`, `complete`: whether the job takes `--full`, `--retry-rejected`, `--complete`.
    """
    options = create_parser(doc, example)
    add_settings_options(options)
    add_selection_options(options, full, retry, complete)
    return options.parse_args(argv)


def create_parser(doc: str | None, example: str) -> argparse.ArgumentParser:
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


def add_selection_options(parser: argparse.ArgumentParser, full: bool, retry: bool, complete: bool = False) -> None:
    parser.set_defaults(full=False, retry=None, complete=False)
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
    if complete:
        parser.add_argument(
            "--complete",
            action="store_true",
            help="the manifest is the whole catalog, or all of the categories given: images that it leaves out are "
            "treated as deleted",
        )


def read_selection(options: argparse.Namespace) -> Selection:
    """Return the part of the catalog that the options select."""
    return Selection.of(options.categories, options.full, options.retry, options.complete)


def load_settings(options: argparse.Namespace) -> Settings:
    """Load the settings that the options name, with absolute `root`, `manifest` and model file."""
    loaded = config.load(options.config, options.overrides)
    absolute: dict[str, Any] = {"root": files.absolute(loaded.root)}
    if loaded.manifest:
        absolute["manifest"] = files.absolute(loaded.manifest)
    if loaded.model.is_file:
        absolute["model"] = loaded.model.model_copy(update={"name": files.absolute(loaded.model.name)})
    return loaded.model_copy(update=absolute)


def resolve_model_file(out: str) -> str:
    """Return the absolute URI of a new model file. Raises ConfigInvalid if it has another suffix."""
    if not out.endswith(config.MODEL_FILE_SUFFIX):
        raise ConfigInvalid(f"--out {out}: name it so that it ends in {config.MODEL_FILE_SUFFIX}")
    return files.absolute(out)


def run_job(job: Callable[[], None]) -> int:
    """Run `job` and return its exit code: 0 done, 2 bad input, 3 gate failed, 130 stopped, 1 any other failure.

    A failure prints one message on stderr. Only an unforeseen one prints its stack trace. Secrets are redacted.
    """
    code, message = _run(job)
    log.event("run ended", exit_code=code)
    log.end()
    if message:
        print(files.redact(message), file=sys.stderr)
    return code


def _run(job: Callable[[], None]) -> tuple[int, str]:
    """Run `job`. Return its exit code and the message to print, empty if it succeeded."""
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
