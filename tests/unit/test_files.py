"""Files: whole or not at all, and uris that Spark and Python both understand."""

import hashlib
from pathlib import Path

import fsspec
import pytest

from lookalike import files


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_a_file_stands_whole_under_its_name(tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme}{tmp_path}/new folder/ä.bin"
    with files.written_atomically(uri) as path:
        path.write_bytes(b"whole")
    assert files.read_bytes(uri) == b"whole"


@pytest.mark.parametrize("scheme", ["file://", "memory://"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme}{tmp_path}/a.bin"
    with files.written_atomically(uri) as path:
        path.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), files.written_atomically(uri) as path:
        path.write_bytes(b"ne")
        raise OSError("disk full")
    assert files.read_bytes(uri) == b"old"
    fs, folder = files.filesystem(f"{scheme}{tmp_path}")
    assert len(fs.ls(folder)) == 1


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read_bytes(str(tmp_path / "a"), 5) == b"12345"
    with pytest.raises(files.TooLarge) as error:
        files.read_bytes(str(tmp_path / "a"), 4)
    assert files.unreadable(error.value) == "beyond the size limit"


def test_a_local_path_becomes_a_uri_without_percent_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.absolute("a b/*.parquet") == f"file://{tmp_path}/a b/*.parquet"
    for uri in ("s3a://bucket/x", "hdfs:///x", "file:///x"):
        assert files.absolute(uri) == uri


def test_one_uri_serves_spark_and_python() -> None:
    assert "s3" in fsspec.get_filesystem_class("s3a").protocol


def test_reasons_hold_no_part_of_the_uri() -> None:
    with pytest.raises(FileNotFoundError) as error:
        files.read_bytes("/secret-token/none.jpg")
    assert files.unreadable(error.value) == "unreadable uri: not found"
    assert "secret" not in files.unreadable(RuntimeError("secret-token"))


def test_sha256_is_hashlib_s(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"x" * 100_000).hexdigest()
