"""Whole runs on hostile pictures and on uris with secrets: every row is accounted for, and no secret is left."""

import base64
import http.server
import io
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin
from tests import catalogs
from tests.hostile import FORMATS, mutated, padded_gif

from lookalike import reasons
from lookalike.report.thumbnails import make_thumbnail

SECRETS = ("s3cr3t-user", "s3cr3t-password", "s3cr3t-signature", "s3cr3t-conf", "s3cr3t-exif", "AKIAS3CR3T")
HOSTILE = 2000


@dataclass
class Safety:
    root: Path
    manifest: Path
    settings: list[str]
    base: str
    ended: list[catalogs.Ended] = field(default_factory=list)

    def run(self, day: int) -> None:
        """The same catalog with uris signed anew, as each day."""
        rows = catalogs.images("plain", 3)
        chance = random.Random(1)
        for n in range(HOSTILE):
            content = mutated(FORMATS[n % len(FORMATS)], chance)
            rows.append({"image_id": f"h{n}", "product_id": f"h{n}", "category": "hostile", "content": content})
        slow = {"image_id": "slow", "product_id": "slow", "category": "hostile", "content": padded_gif(24)}
        rows.append(slow)
        for n in range(4):
            host = self.base.replace("http://", f"http://s3cr3t-user:s3cr3t-password{day}@")
            query = f"id={n}&X-Amz-Credential=AKIAS3CR3T&X-Amz-Signature=s3cr3t-signature{day}"
            uri = f"{host}/{n}.jpg?{query}"
            rows.append({"image_id": f"s{n}", "product_id": f"p{n // 2}", "category": "signed", "uri": uri})
        for image_id, uri in [("inside", "http://169.254.169.254/x?token=s3cr3t-signature"), ("odd", "ftp://h/x")]:
            rows.append({"image_id": image_id, "product_id": "x", "category": "signed", "uri": uri})
        catalogs.write_manifest(self.manifest, rows)
        self.ended.append(catalogs.run("pipeline", self.root, self.manifest, self.settings))


class Pictures(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if "s3cr3t-signature" in self.path and self.headers["Authorization"] else 403)
        self.end_headers()
        self.wfile.write(personal(int(self.path[1])))

    def log_message(self, *_: object) -> None:
        pass


def personal(seed: int) -> bytes:
    """A JPEG that tells who took it, where, in all the ways that one can."""
    exif = Image.Exif()
    exif[0x013B] = exif[0x010E] = "s3cr3t-exif"
    exif.get_ifd(0x8825)[29] = "s3cr3t-exif"
    file = io.BytesIO()
    with Image.open(io.BytesIO(catalogs.picture(seed))) as image:
        image.save(file, "JPEG", exif=exif, comment="s3cr3t-exif", xmp=b"s3cr3t-exif", icc_profile=b"s3cr3t-exif" * 20)
    return file.getvalue()


@pytest.fixture(scope="module")
def safety(
    spark_session: object,  # noqa: ARG001
    small_model: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Safety]:
    folder = tmp_path_factory.mktemp("safety")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = [
        *small_model,
        "gate.max_rejected=1",
        "gate.min_knn_recall=0",  # of hostile pictures many are the same
        "embed.decode_timeout_s=1.5",
        'ingest.hosts=["127.0.0.1"]',
        'spark={"spark.hadoop.fs.s3a.secret.key"="s3cr3t-conf"}',
        f"log_file={folder}/log",
        f"metrics_file={folder}/lookalike.prom",
    ]
    found = Safety(folder / "root", folder / "manifest.parquet", settings, f"http://127.0.0.1:{server.server_port}")
    found.run(day=1)
    yield found
    server.shutdown()


def test_every_hostile_picture_is_in_the_ledger(safety: Safety) -> None:
    assert safety.ended[0].code == 0, safety.ended[0].err
    rows = {row["image_id"]: row for row in catalogs.table(safety.root, "images")}
    hostile = [rows[f"h{n}"] for n in range(HOSTILE)]
    assert all(row["status"] in ("embedded", "reused", "rejected") for row in hostile)
    assert all((row["status"] == "rejected") == (row["reason"] is not None) for row in hostile)
    assert {row["status"] for row in hostile} >= {"embedded", "rejected"}
    assert rows["slow"]["reason"] == reasons.BEYOND_LIMITS.text


def test_stderr_has_nothing_beside_the_log(safety: Safety) -> None:
    """Which is in a file here."""
    assert safety.ended[0].err == ""
    assert "plan of run" in safety.ended[0].out


def test_uris_with_secrets_are_read_and_others_refused(safety: Safety) -> None:
    rows = {row["image_id"]: row for row in catalogs.table(safety.root, "images")}
    assert [rows[f"s{n}"]["status"] for n in range(4)] == ["embedded"] * 4
    assert rows["s0"]["uri"] == f"{safety.base.replace('//', '//…@')}/0.jpg?…"
    assert rows["inside"]["reason"] == "uri not allowed: host"
    assert rows["odd"]["reason"] == "uri not allowed: scheme"


def test_uris_signed_anew_change_nothing(safety: Safety) -> None:
    before = catalogs.versions(safety.root)
    safety.run(day=2)
    assert safety.ended[-1].code == 0, safety.ended[-1].err
    assert catalogs.versions(safety.root) == before


def test_no_secret_is_left_behind(safety: Safety) -> None:
    seen = [ended.out + ended.err for ended in safety.ended]
    for path in [*safety.root.rglob("*"), safety.root.parent / "log", safety.root.parent / "lookalike.prom"]:
        if path.suffix == ".parquet" and path.is_file():
            seen.append(str(pq.ParquetFile(path).read().to_pydict()))
        if path.is_file():
            seen.append(path.read_bytes().decode(errors="ignore"))
    assert sum("s0" in text for text in seen) > 1
    for secret in SECRETS:
        assert not any(secret in text for text in seen), secret


def test_the_log_has_a_line_for_each_event(safety: Safety) -> None:
    lines = [json.loads(line) for line in (safety.root.parent / "log").read_text(encoding="utf-8").splitlines()]
    first = [line for line in lines if line["run_id"] == lines[0]["run_id"]]
    assert [first[0]["event"], first[-1]["event"], first[-1]["exit_code"]] == ["run started", "run ended", 0]
    stages = {line["stage"]: line for line in first if line["event"] == "stage ended"}
    assert list(stages) == ["ingest", "embed", "placeholders", "build_index", "similar_items", "evaluate", "publish"]
    assert stages["ingest"]["counts"]["rows"] == 6 + HOSTILE + 1 + 6
    assert {line["category"] for line in first if line["event"] == "publish"} >= {"plain", "signed"}
    assert {"time", "event", "run_id"} <= set.intersection(*(set(line) for line in lines))


def test_an_error_shows_no_secret(tmp_path: Path) -> None:
    nested = ["spark.spark.hadoop.fs.s3a.secret.key=s3cr3t-conf", "root=s3a://AKIAS3CR3T:s3cr3t-password@b/x"]
    ended = catalogs.run("pipeline", tmp_path / "root", None, nested)
    assert ended.code == 2
    assert not any(secret in ended.err for secret in SECRETS)
    missing = catalogs.run("pipeline", tmp_path / "root", Path("/none?token=s3cr3t-password"))
    assert missing.code == 2


def test_png_texts_never_reach_a_thumbnail() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "s3cr3t-exif")
    texts.add_itxt("XML:com.adobe.xmp", "s3cr3t-exif", zip=False)
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG", pnginfo=texts, icc_profile=b"s3cr3t-exif" * 20)
    for content in (file.getvalue(), personal(1)):
        encoded = base64.b64decode(make_thumbnail(content, 32).partition("base64,")[2])
        with Image.open(io.BytesIO(encoded)) as shown:
            assert shown.format == "WEBP"
            assert not {"exif", "xmp", "icc_profile", "comment"} & set(shown.info)
        assert b"s3cr3t" not in encoded
