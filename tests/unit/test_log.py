"""Events of a run: lines of JSON without secrets, and metrics that Prometheus's own parser reads."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lookalike import log
from lookalike.cli import run_job
from lookalike.config import Settings
from lookalike.errors import ConfigInvalid, GateFailed

SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    log.end()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metrics(path: Path) -> dict[tuple[str, ...], float]:
    """Value by name of the metric, and of its stage and count where it has them."""
    families = text_string_to_metric_families(path.read_text(encoding="utf-8"))
    samples = [sample for family in families for sample in family.samples]
    assert {(s.labels["app"], s.labels["root"]) for s in samples} == {("pipeline", "/data")}
    return {(s.name, *(s.labels[name] for name in ("stage", "name") if name in s.labels)): s.value for s in samples}


def test_an_event_is_one_line_without_secrets(tmp_path: Path) -> None:
    spark = {"spark.hadoop.fs.s3a.secret.key": f"{SECRET} with, a comma", "spark.executor.cores": "4"}
    settings = Settings(root=f"s3a://user:{SECRET}@bucket/x", spark=spark, log_file=str(tmp_path / "log"))
    log.begin("run-1", "pipeline", settings)
    log.event("odd", text=f"two\nlines, https://h/x?sig={SECRET}", values=[f"token={SECRET}", 1, None])
    log.end()
    log.event("after the end")
    first, second = lines(tmp_path / "log")
    assert [first["event"], first["run_id"], first["job"]] == ["run started", "run-1", "pipeline"]
    assert first["settings"]["root"] == "s3a://…@bucket/x"
    assert first["settings"]["spark"] == {"spark.hadoop.fs.s3a.secret.key": "…", "spark.executor.cores": "4"}
    assert (second["text"], second["values"]) == ("two\nlines, https://h/x?…", ["token=…", 1, None])
    assert SECRET not in (tmp_path / "log").read_text(encoding="utf-8")


def test_lines_go_to_stderr_unless_it_is_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.begin("run-1", "pipeline", Settings())
    assert json.loads(capsys.readouterr().err)["event"] == "run started"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    log.begin("run-2", "pipeline", Settings())
    log.event("silent")
    assert capsys.readouterr().err == ""


def run_once(settings: Settings, fails: Exception | None = None) -> int:
    def job() -> None:
        log.begin("run-1", "pipeline", settings)
        log.event("stage ended", stage="ingest", seconds=2.5, images_per_s=4.0, counts={"rows": 10, "rejected": 1})
        log.event("stage ended", stage="publish", seconds=0.5, images_per_s=None, counts={"published": 2})
        if fails:
            raise fails

    return run_job(job)


def test_metrics_of_runs_that_end_well_and_not(tmp_path: Path) -> None:
    path = tmp_path / "lookalike.prom"
    settings = Settings(root="/data", metrics_file=str(path), log_file=str(tmp_path / "log"))
    assert run_once(settings, GateFailed("recall")) == 3
    failed = metrics(path)
    assert failed[("lookalike_run_exit_code",)] == 3
    assert ("lookalike_run_succeeded_timestamp_seconds",) not in failed
    assert run_once(settings) == 0
    done = metrics(path)
    assert done[("lookalike_stage_seconds", "ingest")] == 2.5
    assert done[("lookalike_stage_images_per_second", "ingest")] == 4.0
    assert done[("lookalike_stage_count", "ingest", "rejected")] == 1
    assert done[("lookalike_stage_count", "publish", "published")] == 2
    assert ("lookalike_stage_images_per_second", "publish") not in done
    assert done[("lookalike_run_exit_code",)] == 0
    succeeded = done[("lookalike_run_succeeded_timestamp_seconds",)]
    assert succeeded == done[("lookalike_run_ended_timestamp_seconds",)]
    log.begin("run-3", "pipeline", settings)
    running = metrics(path)
    assert running[("lookalike_run_started_timestamp_seconds",)] > succeeded
    assert running[("lookalike_run_succeeded_timestamp_seconds",)] == succeeded
    assert ("lookalike_run_ended_timestamp_seconds",) not in running
    assert [file.name for file in tmp_path.glob("*.prom*")] == ["lookalike.prom"]


@pytest.mark.parametrize("setting", ["log_file", "metrics_file"])
def test_a_file_that_cannot_be_written_ends_the_run_at_once(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigInvalid, match="none/x"):
        log.begin("run-1", "pipeline", Settings.model_validate({setting: str(tmp_path / "none" / "x")}))


@pytest.mark.parametrize("content", [b"lookalike_run_exit_code{app=", b"\xff\xfe", b"a diary"])
def test_a_file_of_something_else_is_not_overwritten_with_metrics(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.prom"
    path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match="metrics_file"):
        log.begin("run-1", "pipeline", Settings(metrics_file=str(path), log_file=str(tmp_path / "log")))
    assert path.read_bytes() == content


def test_metrics_that_can_no_longer_be_written_do_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    log.begin("run-1", "pipeline", Settings(metrics_file=str(folder / "x.prom"), log_file=str(tmp_path / "log")))
    (folder / "x.prom").unlink()
    folder.rmdir()
    assert run_job(lambda: None) == 0
    assert "metrics_file can't be written to" in capsys.readouterr().err


def test_what_nobody_foresaw_is_told_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    def job() -> None:
        raise ValueError(f"no host in https://user:{SECRET}@h/x")

    assert run_job(job) == 1
    shown = capsys.readouterr().err
    assert shown.endswith("ValueError: no host in https://…@h/x\n\n")
    assert "Traceback" in shown


def test_other_loggers_are_left_alone(tmp_path: Path) -> None:
    handlers = list(logging.getLogger().handlers)
    log.begin("run-1", "pipeline", Settings(log_file=str(tmp_path / "log")))
    logging.getLogger("py4j").warning("noise")
    assert logging.getLogger().handlers == handlers
    assert len(lines(tmp_path / "log")) == 1
