"""Reading pictures by uri, through ingest and embed: each new one once, and what becomes of what can't be read."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import functions as F
from tests.spark.pictures import content_hash, model_of, picture, truth
from tests.spark.rows import image, ledger, manifest_file, run_of
from tests.web_server import Server

from lookalike.config import EmbedSettings, ModelSettings
from lookalike.selection import Selection
from lookalike.spark.catalog.embed import embed
from lookalike.spark.catalog.ingest import ingest
from lookalike.spark.run import Run
from lookalike.spark.tables import Tables

DAY = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)

Rows = list[dict[str, Any]]
Pipeline = Callable[..., Run]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    return model_of(tmp_path_factory.mktemp("model"), 0)


@pytest.fixture
def pipeline(spark: Any, tmp_path: Path, model: ModelSettings) -> Pipeline:
    """Ingests and embeds manifest rows below one root; gives the run."""

    def run(rows: Rows, selection: Selection | None = None, model: ModelSettings = model, **embedding: int) -> Run:
        manifest = manifest_file(tmp_path / "m.parquet", rows)
        reading = {"hosts": ["127.0.0.1"], "image_timeout_s": 20}
        settings = EmbedSettings(engine="torch", **embedding)
        found = run_of(spark, tmp_path / "root", manifest, selection, model=model, ingest=reading, embed=settings)
        embed(found, ingest(found))
        return found

    return run


def outcomes(run: Run) -> dict[str, str]:
    return {row["image_id"]: row["reason"] or row["status"] for row in ledger(run)}


def embeddings(run: Run) -> dict[str, list[float]]:
    rows = run.tables.read("embeddings").where(F.col("model_id") == run.model_id).collect()
    assert len({row["content_hash"] for row in rows}) == len(rows)
    return {row["content_hash"]: row["embedding"] for row in rows}


def by_file(folder: Path, name: str, content: bytes | None = None, **columns: Any) -> dict[str, Any]:
    """A row whose picture is a file, if it has `content`."""
    path = folder / f"{name}.png"
    if content is not None:
        path.write_bytes(content)
    return image(name, content=None, uri=str(path), **columns)


def never_twice_alike(server: Server, paths: list[str]) -> dict[str, list[bytes]]:
    """Lets the server answer each request with a new picture; gives what it answered by path."""
    answered: dict[str, list[bytes]] = {path: [] for path in paths}
    seeds = count()

    def answer(handler: Any) -> None:
        content = picture(next(seeds))
        answered[handler.path].append(content)
        handler.answer(body=content)

    for path in paths:
        server.answers[path] = answer
    return answered


def test_a_server_that_never_answers_twice_alike_loses_no_picture(
    pipeline: Pipeline, server: Server, model: ModelSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each new image is requested once, and what was read is what is hashed and embedded."""
    paths = [f"/{name}.png" for name in ("dated", "again", "undated")]
    answered = never_twice_alike(server, paths)
    rows = [
        image("dated", content=None, uri=server.uri(paths[0]), updated_at=DAY),
        image("again", content=None, uri=server.uri(paths[1]), updated_at=DAY, category="men"),
        image("undated", content=None, uri=server.uri(paths[2])),
    ]
    run = pipeline(rows)
    assert Counter(server.asked) == dict.fromkeys(paths, 1)
    assert set(outcomes(run).values()) == {"embedded"}
    assert run.stages[-1].counts == {"embedded": 3, "reused": 0, "rejected": 0}
    found = embeddings(run)
    for row in ledger(run):
        (content,) = answered[f"/{row['image_id']}.png"]
        assert row["content_hash"] == content_hash(content)
        np.testing.assert_allclose(found[row["content_hash"]], truth(content, model), atol=1e-5)
    assert not list((Path(run.settings.root.removeprefix("file://")) / "staging").rglob("*.parquet"))

    capsys.readouterr()
    server.asked.clear()
    rerun = pipeline(rows)
    assert server.asked == ["/undated.png"]
    assert rerun.stages[-1].counts == {"embedded": 1, "reused": 0, "rejected": 0, "other_bytes": 1}
    assert "1 images have other bytes than when they were last read" in capsys.readouterr().out
    hashes = {row["image_id"]: row["content_hash"] for row in ledger(rerun)}
    assert hashes == {path[1:-4]: content_hash(contents[-1]) for path, contents in answered.items()}


def test_a_crash_between_two_chunks_costs_one(
    pipeline: Pipeline, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed is neither read nor embedded again."""
    paths = [f"/{number}.png" for number in range(6)]
    answered = never_twice_alike(server, paths)
    rows = [
        image(str(number), content=None, uri=server.uri(path), updated_at=DAY, category=f"c{number}")
        for number, path in enumerate(paths)
    ]
    upsert, calls = Tables.upsert, 0

    def crash(tables: Tables, name: str, *arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        upsert(tables, name, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Tables, "upsert", crash)
        with pytest.raises(KeyboardInterrupt):
            pipeline(rows, commit_images=2)
    assert sum(map(len, answered.values())) == 4  # two chunks were read, and one of them was lost
    run = pipeline(rows, commit_images=2)
    assert Counter(map(len, answered.values())) == {1: 4, 2: 2}
    assert run.stages[-1].counts == {"embedded": 4, "reused": 0, "rejected": 0}
    assert {row["content_hash"] for row in ledger(run)} == {content_hash(read[-1]) for read in answered.values()}


def test_an_image_is_read_again_only_if_its_row_says_that_it_changed(pipeline: Pipeline, tmp_path: Path) -> None:
    stated = {"content_hash": content_hash(picture(1))}
    rows = [
        by_file(tmp_path, "dated", picture(0), updated_at=DAY), by_file(tmp_path, "stated", picture(1), **stated),
        by_file(tmp_path, "plain", picture(2)),
    ]  # fmt: skip
    first = pipeline(rows)
    version = first.tables.delta_version("images")
    for name in ("dated", "stated"):
        (tmp_path / f"{name}.png").unlink()
    rerun = pipeline(rows)
    assert rerun.stages[-1].counts == {"embedded": 0, "reused": 1, "rejected": 0}
    assert rerun.tables.delta_version("images") == version

    rows = [
        by_file(tmp_path, "dated", picture(3), updated_at=LATER),
        by_file(tmp_path, "stated", picture(4), content_hash=content_hash(picture(4))),
        by_file(tmp_path, "plain", picture(5)),
    ]
    run = pipeline(rows)
    assert [row["content_hash"] for row in ledger(run)] == [content_hash(picture(n)) for n in (3, 5, 4)]
    assert run.stages[-1].counts == {"embedded": 3, "reused": 0, "rejected": 0, "other_bytes": 1}


def test_what_cannot_be_read_is_told_and_tried_again(pipeline: Pipeline, tmp_path: Path) -> None:
    rows = [
        by_file(tmp_path, "late", updated_at=DAY), by_file(tmp_path, "empty", b"", updated_at=DAY),
        image("scheme", content=None, uri="nosuchscheme://x/y", updated_at=DAY),
        by_file(tmp_path, "good", picture(0), updated_at=DAY),
    ]  # fmt: skip
    first = pipeline(rows)
    refused = {"empty": "zero bytes", "scheme": "uri not allowed: scheme"}
    assert outcomes(first) == {"late": "unreadable uri: not found", "good": "embedded", **refused}
    version = first.tables.delta_version("images")
    rerun = pipeline(rows)
    assert rerun.tables.delta_version("images") == version
    assert rerun.stages[0].counts == {"rows": 4, "waiting": 1, "reused": 1, "rejected": 2}
    for name in ("late", "empty"):
        (tmp_path / f"{name}.png").write_bytes(picture(1))
    assert outcomes(pipeline(rows, Selection(retry="unreadable"))) == {
        "late": "embedded",
        "good": "embedded",
        **refused,
    }
    everything = pipeline(rows, Selection(retry="all"))
    assert outcomes(everything) == {
        "late": "embedded",
        "good": "embedded",
        "empty": "reused",
        "scheme": refused["scheme"],
    }
    assert everything.stages[0].counts == {"rows": 2, "waiting": 2, "reused": 0, "rejected": 0}


def test_only_what_was_rejected_is_retried(pipeline: Pipeline, tmp_path: Path) -> None:
    rows = [
        by_file(tmp_path, "late"), by_file(tmp_path, "good", picture(0)), by_file(tmp_path, "twice"),
        by_file(tmp_path, "twice", product_id="second"), image("bad", category=" ", content=picture(2)),
    ]  # fmt: skip
    first = pipeline(rows)
    for name in ("late", "twice"):
        (tmp_path / f"{name}.png").write_bytes(picture(1))
    (tmp_path / "good.png").unlink()
    rows[-1]["category"] = "mended"
    passing = pipeline(rows, Selection(retry="unreadable"))
    assert passing.stages[0].counts == {"rows": 2, "waiting": 2, "reused": 0, "rejected": 0}
    changed = [(row["image_id"], row["occurrence"]) for row in ledger(passing) if row["run_id"] != first.run_id]
    assert changed == [("late", 0), ("twice", 0)]
    everything = pipeline(rows, Selection(retry="all"))
    assert everything.stages[0].counts == {"rows": 2, "waiting": 1, "reused": 0, "rejected": 1}
    untouched = [(row["image_id"], row["occurrence"]) for row in ledger(everything) if row["run_id"] == first.run_id]
    assert untouched == [("good", 0), ("twice", 1)]


def test_an_embedded_image_outlasts_a_server_that_fails(pipeline: Pipeline, server: Server) -> None:
    """It stays as it was, and is read again by the next run; a new image is rejected, and one that is gone is too."""
    paths = {name: f"/{name}.png" for name in ("stays", "gone", "new")}
    server.answers[paths["stays"]] = lambda handler: handler.answer(body=picture(0))
    server.answers[paths["gone"]] = lambda handler: handler.answer(body=picture(1))
    rows = [image(name, content=None, uri=server.uri(path), updated_at=DAY) for name, path in paths.items()]
    pipeline(rows[:2])
    server.answers[paths["gone"]] = lambda handler: handler.answer(404)
    for name in ("stays", "new"):
        server.answers[paths[name]] = lambda handler: handler.answer(503)
    later = [row | {"updated_at": LATER} for row in rows]
    during = pipeline(later)
    assert outcomes(during) == {
        "stays": "embedded", "gone": "unreadable uri: not found", "new": "unreadable uri: server error",
    }  # fmt: skip
    assert during.stages[-1].counts == {"embedded": 0, "reused": 1, "rejected": 2}
    (stays,) = (row for row in ledger(during) if row["image_id"] == "stays")
    assert (stays["content_hash"], stays["updated_at"]) == (content_hash(picture(0)), DAY.replace(tzinfo=None))

    for name in ("stays", "new"):
        server.answers[paths[name]] = lambda handler: handler.answer(body=picture(7))
    after = pipeline(later)
    assert outcomes(after) == {"stays": "reused", "gone": "unreadable uri: not found", "new": "embedded"}
    assert {row["content_hash"] for row in ledger(after) if row["status"] != "rejected"} == {content_hash(picture(7))}


def test_a_new_model_takes_what_the_server_answers_now(pipeline: Pipeline, server: Server, tmp_path: Path) -> None:
    """Images of one content are read once for another model, and share what is read."""
    server.answers["/a.png"] = lambda handler: handler.answer(body=picture(1))
    server.answers["/b.png"] = lambda handler: handler.answer(body=picture(1))
    rows = [image(n, content=None, uri=server.uri(f"/{n}.png"), updated_at=DAY) for n in "ab"]
    assert Counter(outcomes(pipeline(rows)).values()) == {"embedded": 1, "reused": 1}
    never_twice_alike(server, ["/a.png", "/b.png"])
    server.asked.clear()
    run = pipeline(rows, model=model_of(tmp_path, 1))
    assert len(server.asked) == 1
    assert run.stages[-1].counts == {"embedded": 1, "reused": 1, "rejected": 0, "other_bytes": 2}
    assert {row["content_hash"] for row in ledger(run)} == {content_hash(picture(0))} == set(embeddings(run))
