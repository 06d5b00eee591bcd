"""What all jobs share: their options, and how they end."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lookalike import config, files
from lookalike.config import Settings
from lookalike.errors import LookalikeError

INTERRUPTED = 130


def arguments(doc: str | None, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the options of a job that has settings: `--config FILE` and `--set KEY=VALUE`."""
    parser = argparse.ArgumentParser(description=doc)
    add_settings_options(parser)
    return parser.parse_args(argv)


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML settings; see docs/settings.md")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="one setting, such as root=/data/out",
    )


def settings(options: argparse.Namespace) -> Settings:
    """Settings of the options, with `root` and `manifest` made absolute."""
    loaded = config.load(options.config, options.overrides)
    manifest = files.absolute(loaded.manifest) if loaded.manifest else None
    return loaded.model_copy(update={"root": files.absolute(loaded.root), "manifest": manifest})


def exit_code(job: Callable[[], None]) -> int:
    """Run `job`; a failure becomes one message on stderr and a code: 0 done, 2 bad input, 3 gate, 130 stopped, else 1."""
    try:
        with _errors_in_plain_words():
            job()
    except LookalikeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; finished work is kept, run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    return 0


@contextmanager
def _errors_in_plain_words() -> Iterator[None]:
    """Give the one line that matters of failures that arrive wrapped in Java's and Spark's stack traces."""
    try:
        yield
    except LookalikeError:
        raise
    except Exception as error:
        text = str(error)
        if "No space left on device" in text:
            raise LookalikeError(
                "no space left on the device: free some (the root's, or Spark's local folder), then run the same command again"
            ) from error
        for kind in LookalikeError.__subclasses__():
            # Raised in a Python worker, it comes back as text: "...lookalike.errors.ModelMismatch: message".
            _, found, rest = text.partition(f"lookalike.errors.{kind.__name__}: ")
            if found:
                raise kind(rest.split("\n\n")[0].split("\n\tat ")[0].strip()) from error
        raise
