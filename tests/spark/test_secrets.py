"""Uris in the ledger: nothing that opens the image, everything that tells which it is."""

from typing import Any

from pyspark.sql import functions as F

from lookalike.spark.secrets import is_withheld, withhold_secrets

STORED = {
    "https://user:pass@host/a.jpg": "https://…@host/a.jpg",
    "https://token@host/a.jpg?w=1": "https://…@host/a.jpg?w=1",
    "https://host:8080/logo@2x.png": None,
    "https://host/a.jpg?w=100&h=200#top": None,
    "https://host/a.jpg?w=1&X-Amz-Signature=1&X-Amz-Date=2": "https://host/a.jpg?…",
    "https://host/a.jpg?X-Goog-Credential=1": "https://host/a.jpg?…",
    "https://account.blob.core.windows.net/c/a.jpg?sv=1&sig=2": "https://account.blob.core.windows.net/c/a.jpg?…",
    "https://cdn/a.jpg?Expires=1&Key-Pair-Id=2": "https://cdn/a.jpg?…",
    "https://host/a.jpg#access_token=1": "https://host/a.jpg?…",
    "https://host/a.jpg?api_key=1": "https://host/a.jpg?…",
    "https://host/a.jpg?design=modern&assign=2": None,
    "s3a://KEY:SE/CR+ET@bucket/a.jpg": "s3a://…@bucket/a.jpg",
    "abfss://box@account.dfs.core.windows.net/a.jpg": None,
    "abfss://box:key@account.dfs.core.windows.net/a.jpg": "abfss://…@account.dfs.core.windows.net/a.jpg",
    "file:///data/a:b@c.jpg": None,
    "/data/a b/ü@2x.jpg": None,
    "hdfs://namenode:8020/a.jpg": None,
}


def test_stored_uris(spark: Any) -> None:
    uris = spark.createDataFrame([(uri,) for uri in [*STORED, None]], "uri string")
    stored = withhold_secrets(F.col("uri"))
    rows = uris.select("uri", stored.alias("stored"), is_withheld(stored).alias("withheld")).collect()
    assert {row["uri"]: row["stored"] for row in rows if row["uri"]} == {u: s or u for u, s in STORED.items()}
    assert {row["uri"]: row["withheld"] for row in rows if row["uri"]} == {u: s is not None for u, s in STORED.items()}
    assert [row["stored"] for row in rows if row["uri"] is None] == [None]
