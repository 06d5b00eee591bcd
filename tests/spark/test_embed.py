"""Embed: each content once, the kernel's own embeddings, and a status for every row of the ledger."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.errors import PythonException
from pyspark.sql import functions as F
from tests.spark.pictures import content_hash, model_of, picture, truth
from tests.spark.rows import image, ledger, manifest_file, run_of

from lookalike.config import EmbedSettings, ModelSettings
from lookalike.errors import ManifestChanged, ManifestInvalid, ModelMismatch
from lookalike.kernels.models.load import load_model
from lookalike.selection import Selection
from lookalike.spark.catalog.embed import embed
from lookalike.spark.catalog.ingest import check_ingested, compare_manifest, ingest
from lookalike.spark.catalog.model_id import check_embedded_by_run_model
from lookalike.spark.contents.embed_pictures import task_count
from lookalike.spark.run import Run
from lookalike.spark.tables import Tables

# Several chunks, tasks and batches of a few images.
EMBED = EmbedSettings(engine="torch", batch_images=2, task_images=3, commit_images=9)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    return model_of(tmp_path_factory.mktemp("model"), 0)


@dataclass(frozen=True)
class Catalog:
    """One that was embedded: the rows and the run that did it. Never change its root: tests that write take a copy."""

    root: Path
    rows: list[dict[str, Any]]
    run: Run

    def copied(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.root, folder / "root"))


CONTENTS = [picture(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def catalog(spark_session: object, tmp_path_factory: pytest.TempPathFactory, model: ModelSettings) -> Catalog:
    """A picture for each of CONTENTS in categories a and b by turns, one of them twice, and one that is none."""
    folder = tmp_path_factory.mktemp("catalog")
    rows = [image(f"i{number}", content=content, category="ab"[number % 2]) for number, content in enumerate(CONTENTS)]
    rows += [image("again", content=CONTENTS[0], category="a"), image("text", content=b"no picture", category="c")]
    manifest = manifest_file(folder / "m.parquet", rows)
    run, _ = embedded(spark_session, folder / "root", manifest, model)
    assert run.stages[1].counts == {"embedded": 4, "reused": 1, "rejected": 1}
    return Catalog(folder / "root", rows, run)


def embedded(
    spark: Any, root: Path, manifest: str, model: ModelSettings, selection: Selection | None = None
) -> tuple[Run, str]:
    """A run of ingest and embed, and its model_id."""
    run = run_of(spark, root, manifest, selection, model=model, embed=EMBED)
    embed(run, ingest(run))
    return run, run.model_id


def stored(run: Run) -> dict[tuple[str, str], Any]:
    rows = run.tables.read("embeddings").collect()
    assert len({(row["content_hash"], row["model_id"]) for row in rows}) == len(rows), "a content was embedded twice"
    return {(row["content_hash"], row["model_id"]): row for row in rows}


def test_each_content_is_embedded_once_and_each_row_has_a_status(
    spark: Any, tmp_path: Path, model: ModelSettings
) -> None:
    contents = [picture(seed) for seed in range(9)]
    rows = []
    for number, content in enumerate(contents):
        if number % 2:
            (tmp_path / f"{number}.png").write_bytes(content)
            rows.append(image(f"b{number}", content=None, uri=str(tmp_path / f"{number}.png")))
        else:
            rows.append(image(f"b{number}", content=content))
    # Of one content: by uri what is also carried, and the other way round.
    (tmp_path / "again.png").write_bytes(contents[0])
    rows += [image("a0", content=None, uri=str(tmp_path / "again.png")), image("c1", content=contents[1])]
    rows += [image("c2", content=contents[2]), image("d2", content=contents[2])]
    rows += [image("text", content=b"no picture"), image("cut", content=contents[3][:200]), image("none", content=b"")]
    (tmp_path / "text.png").write_bytes(b"no picture")
    rows.append(image("text2", content=None, uri=str(tmp_path / "text.png")))
    run, model_id = embedded(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows), model)

    found = stored(run)
    assert set(found) == {(content_hash(content), model_id) for content in contents}
    for seed, content in enumerate(contents):
        row = found[content_hash(content), model_id]
        np.testing.assert_allclose(row["embedding"], truth(content, model), atol=1e-5)
        assert (row["width"], row["height"]) == (60, 40 + seed)
    statuses = {row["image_id"]: row["status"] for row in ledger(run)}
    rejected = {"text", "text2", "cut", "none"}
    assert {i for i, status in statuses.items() if status == "rejected"} == rejected
    alike = [{"a0", "b0"}, {"b1", "c1"}, {"b2", "c2", "d2"}]
    for images in alike:
        assert Counter(statuses[i] for i in images) == {"embedded": 1, "reused": len(images) - 1}
    assert {statuses[i] for i in set(statuses).difference(rejected, *alike)} == {"embedded"}
    reasons = {row["image_id"]: row["reason"] for row in ledger(run) if row["reason"]}
    not_an_image = "not an image (JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF)"
    assert reasons == {
        "text": not_an_image, "text2": not_an_image, "cut": "truncated or damaged", "none": "zero bytes",
    }  # fmt: skip
    ingested, figures = run.stages
    assert figures.counts == {"embedded": 9, "reused": 4, "rejected": 3}
    assert sum(figures.counts.values()) == ingested.counts["waiting"] == len(rows) - 1
    assert {row["width"] for row in ledger(run) if row["status"] in ("embedded", "reused")} == {60}


def test_a_rerun_writes_nothing(spark: Any, tmp_path: Path, model: ModelSettings, catalog: Catalog) -> None:
    versions = [catalog.run.tables.delta_version(name) for name in ("images", "embeddings")]
    manifest = manifest_file(tmp_path / "m.parquet", catalog.rows)
    again, _ = embedded(spark, catalog.copied(tmp_path), manifest, model)
    assert [again.tables.delta_version(name) for name in ("images", "embeddings")] == versions
    assert again.stages[1].counts == {"embedded": 0, "reused": 0, "rejected": 0}


def test_only_new_contents_are_embedded(spark: Any, tmp_path: Path, model: ModelSettings, catalog: Catalog) -> None:
    rows = [*catalog.rows, image("c", content=CONTENTS[0]), image("d", content=picture(7))]
    rows[1] = {**rows[1], "content": picture(8)}
    run, model_id = embedded(spark, catalog.copied(tmp_path), manifest_file(tmp_path / "m.parquet", rows), model)
    assert run.stages[1].counts == {"embedded": 2, "reused": 1, "rejected": 0}
    new = {key for key, row in stored(run).items() if row["run_id"] == run.run_id}
    assert new == {(content_hash(picture(seed)), model_id) for seed in (7, 8)}
    assert catalog.run.run_id != run.run_id


def test_a_crash_between_embeddings_and_ledger_loses_nothing(spark: Any, tmp_path: Path, model: ModelSettings) -> None:
    contents = [picture(seed) for seed in range(6)]
    rows = [image(f"i{number}", content=content) for number, content in enumerate(contents)]
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows), model=model, embed=EMBED)
    model_id = load_model(model).model_id
    compared = ingest(run)
    # What the crashed run left: other vectors than the model's, so that a second computation would show.
    kept = [(content_hash(content), model_id, [1.0, 0.0], 7, 7, "crashed") for content in contents[:4]]
    schema = "content_hash string, model_id string, embedding array<float>, width int, height int, run_id string"
    run.tables.append("embeddings", spark.createDataFrame(kept, schema))
    embed(run, compared)
    assert Counter(row["run_id"] for row in stored(run).values()) == {"crashed": 4, run.run_id: 2}
    assert [row["status"] for row in ledger(run)] == ["reused"] * 4 + ["embedded"] * 2
    assert [row["width"] for row in ledger(run)] == [7] * 4 + [60] * 2
    assert run.stages[1].counts == {"embedded": 2, "reused": 4, "rejected": 0}


def test_another_model_embeds_anew(spark: Any, tmp_path: Path, model: ModelSettings, catalog: Catalog) -> None:
    other = model_of(tmp_path, 1)
    manifest = manifest_file(tmp_path / "m.parquet", catalog.rows)
    run, other_id = embedded(spark, catalog.copied(tmp_path), manifest, other)
    assert run.stages[1].counts == {"embedded": 4, "reused": 1, "rejected": 1}
    assert {row["model_id"] for row in ledger(run)} == {other_id}
    found = stored(run)
    assert len(found) == 2 * len(CONTENTS)
    for content in CONTENTS:
        for model_id, settings in ((catalog.run.model_id, model), (other_id, other)):
            embedding = found[content_hash(content), model_id]["embedding"]
            np.testing.assert_allclose(embedding, truth(content, settings), atol=1e-5)


def test_a_new_model_leaves_no_image_of_a_category_behind(spark: Any, tmp_path: Path, model: ModelSettings) -> None:
    other, root = model_of(tmp_path, seed=1), tmp_path / "root"
    rows = [image(f"{category}{i}", category=category, content=picture(10 + i)) for category in "abc" for i in range(3)]
    run, model_id = embedded(spark, root, manifest_file(tmp_path / "m.parquet", rows), model)
    only_new = [image("new", category="a", content=picture(20)), image("c0", category="c", content=picture(10))]
    some = manifest_file(tmp_path / "some.parquet", only_new)
    with pytest.raises(
        ManifestInvalid, match=r"would lose them: 3 of a, 2 of c; if model .* is no mistake, run with a manifest"
    ):
        embedded(spark, root, some, other)
    assert {name for _, name in stored(run)} == {model_id}
    gone = [{**row, "content": None, "deleted": True} if row["image_id"] == "a2" else row for row in rows[:3]]
    run, other_id = embedded(spark, root, manifest_file(tmp_path / "a.parquet", gone), other)
    assert run.stages[-1].counts == {"embedded": 2, "reused": 0, "rejected": 0}
    check_embedded_by_run_model(run)
    with pytest.raises(ModelMismatch, match=rf"{other_id}, .* embedded 2 of these images, .* 6 by {model_id}: give"):
        check_embedded_by_run_model(run, of_all=True)
    only_b = run_of(spark, root, some, Selection.of(["b"]), model=other, embed=EMBED)
    with pytest.raises(ModelMismatch, match=rf"{other_id}, .* embedded 0 of these images, .* 3 by {model_id}: give"):
        check_embedded_by_run_model(only_b)
    models = {row["image_id"]: row["model_id"] for row in ledger(run) if not row["deleted"]}
    assert models == {"a0": other_id, "a1": other_id, "new": None} | {
        f"{c}{i}": model_id for c in "bc" for i in range(3)
    }


def test_given_embeddings_are_normalised(spark: Any, tmp_path: Path, model: ModelSettings) -> None:
    vectors = [[3.0, 4.0], [1e30, 0.0], [0.0, 0.0], [3.0, 4.0], [1.0, 1.0]]
    rows = [{**image(str(i)), "content": None, "embedding": vector} for i, vector in enumerate(vectors)]
    run, model_id = embedded(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows), model)
    assert model_id == "given-2"
    hashes = {row["image_id"]: row["content_hash"] for row in ledger(run)}
    assert len(stored(run)) == 3
    for image_id, expected in {"0": [0.6, 0.8], "1": [1.0, 0.0], "4": [0.5**0.5, 0.5**0.5]}.items():
        np.testing.assert_allclose(stored(run)[hashes[image_id], model_id]["embedding"], expected, rtol=1e-6)
    assert [row["status"] for row in ledger(run)] == ["embedded", "embedded", "rejected", "reused", "embedded"]
    assert run.stages[1].counts == {"embedded": 3, "reused": 1, "rejected": 0}


def test_what_another_job_stores_meanwhile_is_not_left_waiting(
    spark: Any, tmp_path: Path, model: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two categories that both have an image with one embedding, and jobs for each at once."""
    vectors = [[3.0, 4.0], [1.0, 1.0]]
    rows = [{**image(str(i)), "content": None, "embedding": vector} for i, vector in enumerate(vectors)]
    insert = Tables.insert

    def beaten(tables: Tables, name: str, rows: Any, key: Any, lacking_at: int | None = None) -> None:
        if name == "embeddings":
            insert(tables, name, rows.limit(1).withColumn("run_id", F.lit("another")), key)
        insert(tables, name, rows, key, lacking_at)

    monkeypatch.setattr(Tables, "insert", beaten)
    run, _ = embedded(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows), model)
    assert sorted(row["run_id"] == "another" for row in stored(run).values()) == [False, True]
    assert [row["status"] for row in ledger(run)] == ["embedded", "embedded"]


def test_embed_as_a_job_of_its_own_takes_the_manifest_that_ingest_took(
    spark: Any, tmp_path: Path, model: ModelSettings
) -> None:
    rows = [image("i", content=picture(1)), image("j", content=picture(2))]
    manifest = manifest_file(tmp_path / "m.parquet", rows)

    def run() -> Run:
        return run_of(spark, tmp_path / "root", manifest, model=model, embed=EMBED)

    with pytest.raises(ManifestChanged, match=r"ingest has not taken in the manifest .*m\.parquet: run ingest"):
        check_ingested(run())
    first = run()
    ingest(first)
    manifest_file(tmp_path / "m.parquet", rows[:1])
    with pytest.raises(ManifestChanged, match=rf"is not what run {first.run_id} took in: run ingest, then"):
        check_ingested(run())
    manifest_file(tmp_path / "m.parquet", rows)
    later = run()
    check_ingested(later)
    embed(later, compare_manifest(later))
    assert [row["status"] for row in ledger(later)] == ["embedded", "embedded"]
    assert later.stages[0].counts == {"embedded": 2, "reused": 0, "rejected": 0}


def test_bytes_of_another_hash_are_not_embedded(spark: Any, tmp_path: Path, model: ModelSettings) -> None:
    """What the manifest says of an image is verified as it is read; what the same manifest says later may hold."""
    (tmp_path / "a.png").write_bytes(picture(1))
    rows = [image("a", content=None, uri=str(tmp_path / "a.png"), content_hash=content_hash(picture(2)))]
    manifest = manifest_file(tmp_path / "m.parquet", rows)
    run, model_id = embedded(spark, tmp_path / "root", manifest, model)
    reason = "unreadable uri: its bytes are not those of content_hash"
    assert [(row["status"], row["reason"]) for row in ledger(run)] == [("rejected", reason)]
    assert run.tables.read("embeddings").isEmpty()
    (tmp_path / "a.png").write_bytes(picture(2))
    again, _ = embedded(spark, tmp_path / "root", manifest, model)
    assert [(row["status"], row["reason"]) for row in ledger(again)] == [("embedded", None)]
    np.testing.assert_allclose(
        stored(again)[content_hash(picture(2)), model_id]["embedding"], truth(picture(2), model), atol=1e-5
    )


def test_known_content_is_neither_read_nor_embedded(
    spark: Any, tmp_path: Path, model: ModelSettings, catalog: Catalog
) -> None:
    # By uris where nothing is: whoever read them would fail.
    gone = [
        image(f"gone {i}", content=None, uri=f"{tmp_path}/none-{i}.png", content_hash=content_hash(content))
        for i, content in enumerate(CONTENTS)
    ]
    run, _ = embedded(spark, catalog.copied(tmp_path), manifest_file(tmp_path / "m.parquet", gone), model)
    assert run.stages[1].counts == {"embedded": 0, "reused": 4, "rejected": 0}
    assert run.stages[1].images == 0
    assert {row["status"] for row in ledger(run) if row["uri"]} == {"reused"}


def test_a_run_embeds_its_manifest_and_selection_only(spark: Any, tmp_path: Path, catalog: Catalog) -> None:
    other, first_id = model_of(tmp_path, 1), catalog.run.model_id
    manifest = manifest_file(tmp_path / "m.parquet", [row for row in catalog.rows if row["image_id"] != "i3"])
    run, other_id = embedded(spark, catalog.copied(tmp_path), manifest, other, Selection(("a",)))
    models = {row["image_id"]: row["model_id"] for row in ledger(run)}
    assert models == {"i0": other_id, "i2": other_id, "again": other_id} | dict.fromkeys(("i1", "i3", "text"), first_id)
    assert run.stages[1].counts == {"embedded": 2, "reused": 1, "rejected": 0}


def test_a_retry_embeds_only_what_was_rejected(spark: Any, tmp_path: Path, model: ModelSettings) -> None:
    rows = [image("late", content=None, uri=str(tmp_path / "late.png")), image("good", content=picture(1))]
    rows.append(image("text", content=b"no picture"))
    manifest = manifest_file(tmp_path / "m.parquet", rows)
    embedded(spark, tmp_path / "root", manifest, model)
    (tmp_path / "late.png").write_bytes(picture(2))
    run, _ = embedded(spark, tmp_path / "root", manifest, model, Selection(retry="unreadable"))
    assert run.stages[1].counts == {"embedded": 1, "reused": 0, "rejected": 0}
    run, _ = embedded(spark, tmp_path / "root", manifest, model, Selection(retry="all"))
    assert run.stages[1].counts == {"embedded": 0, "reused": 0, "rejected": 1}
    # Another model's turn is no retry.
    with pytest.raises(ManifestInvalid, match=r"would lose them: 2 of women/dresses; .* without --retry-rejected"):
        embedded(spark, tmp_path / "root", manifest, model_of(tmp_path, 1), Selection(retry="all"))


def test_a_worker_with_another_model_file_fails_the_job(spark: Any, tmp_path: Path, model: ModelSettings) -> None:
    manifest = manifest_file(tmp_path / "m.parquet", [image("a", content=picture(1))])
    run = run_of(spark, tmp_path / "root", manifest, model_id="the driver's", model=model, embed=EMBED)
    compared = ingest(run)
    with pytest.raises(PythonException, match="the run's is the driver's: give all machines the same model file"):
        embed(run, compared)
    assert [row["status"] for row in ledger(run)] == [None]


@pytest.mark.parametrize(("contents", "tasks"), [(0, 1), (5, 1), (100, 3), (1_000, 8), (10_000, 40)])
def test_all_cores_get_tasks(contents: int, tasks: int) -> None:
    assert task_count(contents, 2, EmbedSettings(batch_images=32, task_images=256)) == tasks
