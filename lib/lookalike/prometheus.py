"""Metrics of a job's latest run, as a file that the text file collector of Prometheus's node exporter reads."""

import logging
import sys
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families

_SUCCEEDED = "lookalike_run_succeeded_timestamp_seconds"
_OF_RUN = {
    "lookalike_run_started_timestamp_seconds": "when the latest run started",
    "lookalike_run_ended_timestamp_seconds": "when the latest run ended; absent while it runs, and where it was killed",
    "lookalike_run_exit_code": "how the latest run ended: 0 done, 2 bad input, 3 gate failed, 130 stopped, 1 other",
    _SUCCEEDED: "when a run last ended with 0",
}
_OF_STAGE = {
    "lookalike_stage_seconds": "how long a stage of the latest run took",
    "lookalike_stage_images_per_second": "images of a stage of the latest run, by its seconds",
}


class Metrics(logging.Handler):
    """Turns the log's events into metrics. The file is replaced as a whole, at the start and after each stage."""

    def __init__(self, path: Path, job: str, root: str) -> None:
        """Raises OSError where `path` can't be written to, ValueError where it holds something else than metrics."""
        super().__init__()
        self._path = path
        self._labels = {"app": job, "root": root}  # Prometheus has a label `job` of its own
        self._registry = CollectorRegistry()
        names = list(self._labels)
        self._gauges = {name: Gauge(name, text, names, registry=self._registry) for name, text in _OF_RUN.items()}
        for name, text in _OF_STAGE.items():
            self._gauges[name] = Gauge(name, text, [*names, "stage"], registry=self._registry)
        self._counts = Gauge(
            "lookalike_stage_count",
            "what a stage of the latest run counted, by name, as in the table runs",
            [*names, "stage", "name"],
            registry=self._registry,
        )
        if (succeeded := self._read_last_success()) is not None:
            self._set(_SUCCEEDED, succeeded)
        self._write()

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", {})
        match record.msg:
            case "run started":
                self._set("lookalike_run_started_timestamp_seconds", record.created)
            case "stage ended":
                self._set_stage(**fields)
            case "run ended":
                self._set("lookalike_run_ended_timestamp_seconds", record.created)
                self._set("lookalike_run_exit_code", fields["exit_code"])
                if fields["exit_code"] == 0:
                    self._set(_SUCCEEDED, record.created)
            case _:
                return
        try:
            self._write()
        except OSError as error:  # the run goes on
            print(f"metrics_file can't be written to ({error})", file=sys.stderr)

    def _set_stage(self, stage: str, seconds: float, images_per_s: float | None, counts: dict[str, int]) -> None:
        self._set("lookalike_stage_seconds", seconds, stage=stage)
        if images_per_s is not None:
            self._set("lookalike_stage_images_per_second", images_per_s, stage=stage)
        for name, value in counts.items():
            self._counts.labels(**self._labels, stage=stage, name=name).set(value)

    def _set(self, name: str, value: float, **labels: Any) -> None:
        self._gauges[name].labels(**self._labels, **labels).set(value)

    def _write(self) -> None:
        write_to_textfile(str(self._path), self._registry)

    def _read_last_success(self) -> float | None:
        """As the file of an earlier run says."""
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return next((s.value for s in samples if s.name == _SUCCEEDED and s.labels == self._labels), None)
