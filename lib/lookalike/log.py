"""The log: one line of JSON for each event of a run, with its run id, and without secrets.

It goes to stderr where that is no terminal, or to a file; on a terminal there are progress bars instead. Metrics are
made of the same events.
"""

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lookalike.config import Settings
from lookalike.errors import ConfigInvalid
from lookalike.files import is_secret, redact
from lookalike.prometheus import Metrics

_log = logging.getLogger("lookalike")
_log.setLevel(logging.INFO)
_log.propagate = False
_MAX_TEXT = 300


def begin(run_id: str, job: str, settings: Settings) -> None:
    """Begin the log of a run. Its first event holds the settings that differ from the defaults.

    Raises ConfigInvalid if the log or the metrics can't be written.
    """
    end()
    try:
        for handler in _make_handlers(run_id, job, settings):
            _log.addHandler(handler)
    except (OSError, ValueError) as error:  # ValueError: the file that is there holds no metrics
        raise ConfigInvalid(
            f"log_file or metrics_file can't be written to ({error}): give a local file in a folder that is there, a"
            " new one or one of earlier runs"
        ) from None
    event("run started", job=job, settings=settings.model_dump(mode="json", exclude_defaults=True))


def _make_handlers(run_id: str, job: str, settings: Settings) -> Iterator[logging.Handler]:
    if settings.log_file or not sys.stderr.isatty():
        file = settings.log_file
        lines = logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler()
        lines.setFormatter(_Line(run_id))
        yield lines
    if settings.metrics_file:
        yield Metrics(Path(settings.metrics_file), job, redact(settings.root))


def event(name: str, **fields: Any) -> None:
    """Log an event of the run that began in this process. If none did, nothing happens."""
    if _log.handlers:
        _log.info(name, extra={"fields": fields})


def end() -> None:
    for handler in list(_log.handlers):
        _log.removeHandler(handler)
        handler.close()


class _Line(logging.Formatter):
    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run_id = run_id

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = _clean(getattr(record, "fields", {}))
        line = {"time": time, "event": record.getMessage(), "run_id": self._run_id, **fields}
        return json.dumps(line, ensure_ascii=False)


def _clean(value: Any) -> Any:
    """Return `value` without secrets, and with long texts cut."""
    if isinstance(value, dict):
        return {key: "…" if is_secret(key) else _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return redact(value)[:_MAX_TEXT] if isinstance(value, str) else value
