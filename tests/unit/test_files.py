"""Files: whole or not at all, and uris that Spark and Python both understand."""

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fsspec
import pytest

from lookalike import delta_log, files
from lookalike.config import Settings
from lookalike.errors import RootUnusable
from lookalike.selection import EVERYTHING
from lookalike.spark import start
from lookalike.spark.queries.match_queries import check_replaceable


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_a_file_stands_whole_under_its_name(tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme}{tmp_path}/new folder/ä.bin"
    with files.write_atomically(uri) as path:
        path.write_bytes(b"whole")
    assert files.read_bytes(uri) == b"whole"


@pytest.mark.parametrize("scheme", ["file://", "memory://"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme}{tmp_path}/a.bin"
    with files.write_atomically(uri) as path:
        path.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), files.write_atomically(uri) as path:
        path.write_bytes(b"ne")
        raise OSError("disk full")
    assert files.read_bytes(uri) == b"old"
    fs, folder = files.filesystem(f"{scheme}{tmp_path}")
    assert len(fs.ls(folder)) == 1


def test_a_local_path_becomes_a_uri_without_percent_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.absolute("a b/*.parquet") == f"file://{tmp_path}/a b/*.parquet"
    for uri in ("s3a://bucket/x", "hdfs:///x", "file:///x"):
        assert files.absolute(uri) == uri


def test_one_uri_serves_spark_and_python() -> None:
    assert "s3" in fsspec.get_filesystem_class("s3a").protocol


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3a://AKIA:se/cr+et@media/catalogs/spring", "s3a://…@media/catalogs/spring"),
        ("s3://media/catalogs/a@b", "s3://media/catalogs/a@b"),
        ("https://token@host/x.jpg?X-Amz-Signature=5ec7e7#part", "https://…@host/x.jpg?…"),
        ("https://host:8443/x.jpg", "https://host:8443/x.jpg"),
        ("https://host/x.jpg#access_token=1", "https://host/x.jpg?…"),
        ("abfss://box@account.dfs.core.windows.net/spring", "abfss://box@account.dfs.core.windows.net/spring"),
        ("abfss://box:key@account.dfs.core.windows.net/x", "abfss://…@account.dfs.core.windows.net/x"),
        ("hdfs://namenode:8020/spring", "hdfs://namenode:8020/spring"),
        ("file:///data/spring", "file:///data/spring"),
        ("catalog", "catalog"),
        ("https://u:p?a#ss@word@host/x.jpg", "https://…@host/x.jpg"),
        ("http://host:8080/logo@2x.png", "http://host:8080/logo@2x.png"),
        ("http://[::1]:80/logo@2x.png", "http://[::1]:80/logo@2x.png"),
        ("spark.hadoop.fs.s3a.secret.key=abc", "spark.hadoop.fs.s3a.secret.key=…"),
        ("{'fs.s3a.access.key': 'AKIA', 'spark.x': '1'}", "{'fs.s3a.access.key': …, 'spark.x': '1'}"),
        ("password: hush, more", "password: …, more"),
        ("password = 'hush, hush' more", "password = … more"),
        (
            "unreadable uri: HTTPS://u:p@host/x.jpg?sig=1 after 30 s",
            "unreadable uri: HTTPS://…@host/x.jpg?… after 30 s",
        ),
    ],
)
def test_redacted(text: str, shown: str) -> None:
    assert files.redact(text) == shown


def test_sha256_is_hashlib_s(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"x" * 100_000).hexdigest()


@pytest.mark.parametrize("name", ["a%20b", "a[1]", "a*b", "a?b", "a|b", "a^b"])
def test_jobs_refuse_a_place_for_tables_that_some_tool_would_take_for_another_one(tmp_path: Path, name: str) -> None:
    """Before Spark starts, whichever job it is; the guess would be that Spark and delta-rs read it as it is written."""
    place = f"{tmp_path}/{name}"
    settings = Settings(root=place)
    with pytest.raises(RootUnusable, match="give another folder"):
        start.start(settings, "pipeline", EVERYTHING)
    with pytest.raises(RootUnusable, match="give another folder"):
        start.start_on_catalog(settings, "status", writes=False)
    with pytest.raises(RootUnusable, match="give another folder"):
        check_replaceable(place)
    assert not list(tmp_path.iterdir())


def test_a_place_on_hdfs_is_checked_without_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork hangs once there is one, and the check comes before Spark's JVM is forked."""
    monkeypatch.setattr(files, "filesystem", lambda uri: pytest.fail(f"a client of {uri}"))
    files.check_path("hdfs://name:8020/shop é")
    with pytest.raises(RootUnusable):
        files.check_path("hdfs://name:8020/shop%20e")


def test_delta_rs_takes_a_sign_of_fragments_for_a_part_of_a_remote_path(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(delta_log, "DeltaTable", lambda path, _version: opened.append(path))
    delta_log.open_table("s3a://bucket/a#b é/tables/shards")
    assert [unquote(urlsplit(path).path) for path in opened] == ["/a#b é/tables/shards"]
