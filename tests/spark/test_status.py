"""What status and history tell."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.spark import versions
from tests.spark.versions import MODEL, build, run_at

from lookalike.selection import Selection
from lookalike.spark.catalog.audit import read_actions
from lookalike.spark.catalog.publish import publish
from lookalike.spark.catalog.versions import name_candidates
from lookalike.spark.operations.history import print_history, summarise_actions
from lookalike.spark.operations.pins import pin
from lookalike.spark.operations.rollback import rollback
from lookalike.spark.operations.status import print_rejected, print_status, read_status


def test_status_and_history(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "ann")
    root = tmp_path / "root"
    run = run_at(spark, root)
    versions.ledger(run, a="embedded", b="embedded", late="embedded", slow="deleted")
    ledger = run.tables.read("images")
    found = {row["category"]: row["version"] for row in name_candidates(ledger, MODEL, run.settings).collect()}
    build(run, ("a", "old", None), ("a", found["a"], "old"), ("b", found["b"], None))
    versions.went_live(run, a=("old", found["a"]), b=(found["b"],))
    rollback(run_at(spark, root), "a")
    pin(run, "a", found["a"], "to compare")

    reasons = ["zero bytes", "zero bytes", "[red]"]
    rejected = [versions.image_row("bad", "rejected", i, reason) for i, reason in enumerate(reasons)]
    rejected += [versions.image_row(None, "rejected", reason="no category"), versions.image_row("slow", None, 1)]
    versions.append(run, "images", rejected)

    told = {row["category"]: row for row in read_status(run).collect()}
    assert told.keys() == {"a", "b", "bad", "late", "slow", None}
    a = told["a"]
    assert (a["version"], a["next"], a["held"], a["products"], a["recall@10"]) == ("old", found["a"], True, 6.0, 0.8)
    assert (a["model_id"], a["pins"]) == (MODEL, 1)
    assert (told["b"]["version"], told["b"]["next"], told["b"]["pins"]) == (found["b"], None, None)
    assert (told["late"]["version"], told["late"]["next"], told["late"]["held"]) == (None, found["late"], None)
    assert [(-r["less"], r["reason"]) for r in told["bad"]["rejected"] if r["reason"]] == [
        (2, "zero bytes"),
        (1, "[red]"),
    ]
    assert told["slow"]["waiting"] == 1
    capsys.readouterr()
    print_status(run)
    out = " ".join(capsys.readouterr().out.split())
    assert "1 [red]" in out
    print_rejected(dataclasses.replace(run, selection=Selection.of(["bad"])))
    lines = [line for line in capsys.readouterr().out.splitlines() if "i-bad-" in line]
    assert len(lines) == 3
    assert "[red]" in lines[2]
    monkeypatch.setattr("lookalike.spark.operations.status._REJECTED", 1)
    print_rejected(run)
    assert "and 3 more: see the table images" in capsys.readouterr().out

    chosen = read_status(dataclasses.replace(run, selection=Selection.of(["a", "bad"])))
    assert {row["category"] for row in chosen.collect()} == {"a", "bad"}

    by_run = summarise_actions(read_actions(run.tables), by_run=True).collect()
    assert [(row["action"], row["category"], row["version"]) for row in by_run] == [
        ("publish", "2 categories", None),
        ("publish", "a", found["a"]),
        ("rollback", "a", "old"),
        ("pin", "a", found["a"]),
    ]
    publish(run_at(spark, root), [versions.candidate(run, "a", found["a"])], force="sale starts")
    last = summarise_actions(read_actions(run.tables), by_run=True).collect()[-1]
    assert (last["action"], last["why"]) == ("publish (forced)", "sale starts")
    assert {row["who"] for row in by_run} == {"ann"}
    print_history(run.tables, "b")
    out = capsys.readouterr().out
    assert " b " in out
    assert "rollback" not in out
