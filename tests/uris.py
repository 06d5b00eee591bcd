"""Uris as people bring them, for the tests of all ways in."""

DIRTY = [
    (" https://h.example/x.jpg", "https://h.example/x.jpg"),
    ("https://h.example/x.jpg\r\n", "https://h.example/x.jpg"),
    ("\t\u00a0https://h.example/a b.jpg \u3000", "https://h.example/a b.jpg"),
    ("\ufeffhttps://h.example/x.jpg\u200b", "https://h.example/x.jpg"),
    ("\u200e\u2060https://h.example/x.jpg\u202c\u00ad", "https://h.example/x.jpg"),
    ("\u2028/data/x.jpg\u0085\x00", "/data/x.jpg"),
    ("HTTPS://H.example/X.jpg", "https://H.example/X.jpg"),
    ("http:\\\\h.example\\x.jpg", "http://h.example\\x.jpg"),
    ("Https:/h.example/x.jpg", "https://h.example/x.jpg"),
    ("https:////h.example/x.jpg", "https://h.example/x.jpg"),
    ("HTTP:h.example/x.jpg", "http://h.example/x.jpg"),
    ("//cdn.example/x.jpg", "https://cdn.example/x.jpg"),
    ("//cdn.shop.example:8443/x.jpg", "https://cdn.shop.example:8443/x.jpg"),
    ("FILE:///data/x.jpg", "file:///data/x.jpg"),
    ("file:/data/x.jpg", "file:///data/x.jpg"),
    ("file://localhost/data/x.jpg", "file:///data/x.jpg"),
    ("File://LocalHost/data/x.jpg ", "file:///data/x.jpg"),
    ("S3://bucket/Key.jpg", "s3://bucket/Key.jpg"),
    (" \u200b\t", ""),
]
"""What is given, and what it means."""

CLEAN = [
    "https://h.example/a%2Fb%20c.jpg?q=%2F&u=HTTP://x",
    "https://user:pw@h.example/x.jpg",
    "/data/a b/HTTP:x.jpg",
    "//data/x.jpg",  # a path: what stands where a host would has no dot
    "file:////data/x.jpg",
    "file://server/share/x.jpg",
    "images/a.jpg",
    "s3://bucket/a b%20c.jpg",
    "hdfs:///x",
    "https://…@h.example/x.jpg?…",
    "",
]
