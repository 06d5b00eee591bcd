"""Image uris: read from where the settings allow, within limits; servers here are real ones, on loopback."""

import os
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.web_server import BODY, Server, serving

from lookalike import __version__, fetch, reasons, web
from lookalike.config import IngestSettings
from lookalike.unreadable import reason_of

HERE = ("127.0.0.1",)


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(fetch, "_LONGEST_WAIT_S", 0.01)


def reason(uri: str, **settings: Any) -> str:
    with pytest.raises(Exception) as error:  # every file system has its own
        fetch.read_image(uri, IngestSettings(**settings))
    return reason_of(error.value)


def test_a_listed_host_is_read(server: Server) -> None:
    server.answers["/a%20b.jpg?x=1"] = lambda request: request.answer()
    assert fetch.read_image(server.uri("/a b.jpg?x=1"), IngestSettings(hosts=HERE)) == BODY
    assert fetch.read_image(server.uri("/a%20b.jpg?x=1"), IngestSettings(hosts=("127.*",))) == BODY
    assert len(server.asked) == 2


def test_private_addresses_are_refused_unless_listed(server: Server) -> None:
    port = server.server_address[1]
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254", "[fe80::1]"):
        assert reason(f"http://{host}:{port}/x") == "uri not allowed: private address"
    assert server.asked == []


def test_a_name_that_leads_to_a_private_address_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.server_address[1]))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_: inner)
    assert reason("http://innocent.example/x") == "uri not allowed: private address"
    assert server.asked == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::1", False),
        ("fc00::1", False),
        ("fe80::1%eth0", False),
        ("ff0e::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert web.is_public(address) == public


def test_redirects_are_followed_and_each_is_checked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = {
        "/there": lambda request: request.answer(302, b"", Location="/picture"),
        "/picture": lambda request: request.answer(),
        "/away": lambda request: request.answer(301, b"", Location="http://elsewhere.example/x"),
        "/file": lambda request: request.answer(302, b"", Location="file:///etc/passwd"),
        "/round": lambda request: request.answer(302, b"", Location="/round"),
        "/inside": lambda request: request.answer(302, b"", Location=server.uri("/picture")),
    }
    assert fetch.read_image(server.uri("/there"), IngestSettings(hosts=HERE)) == BODY
    assert reason(server.uri("/away"), hosts=HERE) == "uri not allowed: host"
    assert reason(server.uri("/file"), hosts=HERE) == "uri not allowed: scheme"
    assert reason(server.uri("/round"), hosts=HERE) == "uri not allowed: too many redirects"
    assert server.asked.count("/round") == 6
    # Another server, which stands for one of the open internet, sends us to the one inside.
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.2")
    for outside in serving("127.0.0.2"):
        outside.answers = server.answers
        asked = len(server.asked)
        assert reason(outside.uri("/inside")) == "uri not allowed: private address"
        assert outside.asked == ["/inside"]
        assert len(server.asked) == asked


def test_limits_of_size_and_time(server: Server) -> None:
    done = threading.Event()

    def drip(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        while not done.wait(0.05):
            request.wfile.write(b"x")

    server.answers = {
        "/": lambda request: request.answer(),
        "/drip": drip,
        "/silent": lambda _: done.wait(5),
        "/endless": lambda request: request.answer(body=b"x" * 10**6),
    }
    try:
        assert len(fetch.read_image(server.uri("/"), IngestSettings(hosts=HERE, max_image_bytes=len(BODY)))) == len(
            BODY
        )
        assert reason(server.uri("/endless"), hosts=HERE, max_image_bytes=len(BODY)) == "beyond the size limit"
        for path, limits in [("/drip", {"image_timeout_s": 0.6}), ("/silent", {"read_timeout_s": 0.1})]:
            start = time.monotonic()
            assert reason(server.uri(path), hosts=HERE, **limits) == reasons.TIMED_OUT.text
            assert time.monotonic() - start < 2
    finally:
        done.set()


def test_what_may_pass_is_tried_again(server: Server) -> None:
    def third_time(request: Any) -> None:
        request.answer(503 if server.asked.count(request.path) < 3 else 200)

    server.answers = {
        "/third": third_time,
        "/busy": lambda request: request.answer(429),
        "/cut": lambda request: (request.answer(200, b"half", **{"Content-Length": "9"}), request.connection.close()),
        "/gone": lambda request: request.answer(404),
        "/closed": lambda request: request.answer(403),
    }
    assert fetch.read_image(server.uri("/third"), IngestSettings(hosts=HERE)) == BODY
    for path, expected, tries in [
        ("/busy", reasons.SERVER_ERROR.text, 3),
        ("/gone", "unreadable uri: not found", 1),
        ("/closed", "unreadable uri: permission denied", 1),
    ]:
        assert reason(server.uri(path), hosts=HERE) == expected
        assert server.asked.count(path) == tries
    assert reason("http://127.0.0.1:9/", hosts=HERE) == reasons.NO_CONNECTION.text


@pytest.mark.parametrize(
    "uri",
    [
        "memory://x",
        "ftp://host/x",
        "ssh://host/x",
        "github://a:b@/x",
        "zip://x",
        "reference://x",
        "HTTPX://a/b",
        "data:/x",
    ],
)
def test_only_listed_schemes(uri: str) -> None:
    assert reason(uri) == "uri not allowed: scheme"
    assert reason("/etc/hostname", schemes=("https",)) == "uri not allowed: scheme"


def test_chains_and_other_buckets_are_refused() -> None:
    assert reason("s3://bucket/x::http://127.0.0.1/") == "uri not allowed: chained"
    assert reason("s3://other/x", hosts=("media",)) == "uri not allowed: host"
    assert reason("https://127.0.0.1.evil.example/x", hosts=HERE) == "uri not allowed: host"
    assert reason("https://127.0.0.1@evil.example/x", hosts=HERE) == "uri not allowed: host"
    assert reason("simplecache::http://127.0.0.1/x") == "unreadable uri: not found"  # it is a path


def test_files_outside_the_folders_are_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "in side"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.jpg").write_bytes(BODY)
    (inside / "link.jpg").symlink_to(outside / "a.jpg")
    (inside / "folder").symlink_to(outside)
    folders = (str(inside),)
    for good in (f"{inside}/a.jpg", f"file://{inside}/a.jpg", f"file:{inside}/../in/a.jpg"):
        assert fetch.read_image(good, IngestSettings(folders=folders)) == BODY
    for bad in (
        outside / "a.jpg",
        inside / "link.jpg",
        inside / "folder/a.jpg",
        inside / "../in side/a.jpg",
        outside / "no",
    ):
        assert reason(str(bad), folders=folders) == "uri not allowed: folder"
        assert reason(f"file://{bad}", folders=folders) == "uri not allowed: folder"
    assert reason(f"{inside}/none.jpg", folders=folders) == "unreadable uri: not found"


def test_only_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", str(tmp_path / "pipe"), str(tmp_path)):
        assert reason(path) == "uri not allowed: not a file"


def test_file_size_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert fetch.read_image(str(tmp_path / "a"), IngestSettings(max_image_bytes=5)) == b"12345"
    assert reason(str(tmp_path / "a"), max_image_bytes=4) == "beyond the size limit"


# Addresses as they are sent, whichever way they come.


def any_path(server: Server, status: int = 200, body: bytes = BODY) -> None:
    server.answers = defaultdict(lambda: lambda request: request.answer(status, body))


def redirect(location: str) -> Callable[[Any], object]:
    return lambda request: request.answer(302, b"", Location=location)


@pytest.mark.parametrize(
    "path",
    [
        "/a%2Fb%2C%3A%27.jpg",
        "/a//b///c.jpg",
        "/x.jpg?X-Amz-Credential=K%2Fs3&X-Amz-Signature=a%2Bb%3D%3D",
        "/x.jpg?Policy=e~_&Signature=a%2fb",
        "/%7Euser/a+b,(c).jpg",
    ],
)
def test_an_encoded_address_is_sent_as_it_stands_also_after_a_redirect(server: Server, path: str) -> None:
    any_path(server)
    server.answers["/whole"] = redirect(server.uri(path))
    server.answers["/part"] = lambda request: request.answer(307, b"", Location=f" {path} ")
    for start in (path, "/whole", "/part"):
        assert fetch.read_image(server.uri(start), IngestSettings(hosts=HERE)) == BODY
        assert server.asked.pop() == path


def test_what_is_illegal_is_encoded(server: Server) -> None:
    any_path(server)
    server.answers["/there"] = redirect("/ä b".encode().decode("latin-1"))
    for start in ("/ä b?q=ä b", "/there"):
        assert fetch.read_image(server.uri(start), IngestSettings(hosts=HERE)) == BODY
    assert server.asked == ["/%C3%A4%20b?q=%C3%A4%20b", "/there", "/%C3%A4%20b"]


def test_a_redirect_that_wears_another_host_is_refused(server: Server) -> None:
    """Backslashes are slashes, as in browsers: what stands behind them is no host."""
    for number, location in enumerate(
        ["http:\\\\elsewhere.example\\x", "\\\\elsewhere.example/x", "//elsewhere.example"]
    ):
        server.answers[f"/{number}"] = redirect(location)
        assert reason(server.uri(f"/{number}"), hosts=HERE) == reasons.HOST_NOT_ALLOWED.text
    assert reason(f"http://elsewhere.example\\@127.0.0.1:{server.server_port}/x", hosts=HERE) == "uri not allowed: host"


def test_uris_are_cleaned(server: Server, tmp_path: Path) -> None:
    any_path(server)
    (tmp_path / "a b.jpg").write_bytes(BODY)
    place = server.uri("/x.jpg").removeprefix("http://")
    web = (f"\ufeff HTTP://{place}\u200b\r\n", f"http:\\\\{place}", f"http:/{place}")
    local = (f"FILE://{tmp_path}/a b.jpg\t", f"file://localhost{tmp_path}/a b.jpg", f"\u00a0{tmp_path}/a b.jpg ")
    for uri in (*web, *local):
        assert fetch.read_image(uri, IngestSettings(hosts=HERE)) == BODY
    assert server.asked == ["/x.jpg"] * 3


def test_escapes_of_a_file_s_uri_are_decoded_where_no_file_is_named_so(tmp_path: Path) -> None:
    """Where both are there, to take one would be a guess: pathlib means the one, make_manifest the other."""
    for name in ("ü a#1.jpg", "100% wool.jpg", "b%20c.jpg", "d%20e.jpg", "d e.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    settings = IngestSettings(folders=(str(tmp_path),))
    for name in ("ü a#1.jpg", "100% wool.jpg"):
        assert fetch.read_image((tmp_path / name).as_uri(), settings) == name.encode()
        assert fetch.read_image(f"file://{tmp_path}/{name}", settings) == name.encode()
    assert fetch.read_image(f"file://{tmp_path}/b%20c.jpg", settings) == b"b%20c.jpg"
    assert fetch.read_image(f"{tmp_path}/d%20e.jpg", settings) == b"d%20e.jpg"
    assert reason(f"file://{tmp_path}/d%20e.jpg") == reasons.TWO_FILES.text
    # Nothing tells whether a file is there that is elsewhere.
    for name in ("etc/hostname", "etc/none"):
        assert reason(f"file://{tmp_path}/{'%2e%2e/' * 20}{name}", folders=(str(tmp_path),)) == reasons.NOT_FOUND.text
    assert reason(f"file://{tmp_path}/%00") == reasons.MALFORMED_URI.text


# Answers, and the reason for each that is no image.


def test_every_success_is_one(server: Server) -> None:
    for status in (200, 201, 202, 203, 206, 226, 299):
        any_path(server, status)
        assert fetch.read_image(server.uri("/x"), IngestSettings(hosts=HERE)) == BODY
    any_path(server, 204, b"")
    assert fetch.read_image(server.uri("/x"), IngestSettings(hosts=HERE)) == b""


def test_reasons_are_those_of_a_person(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for status in (300, 304, 400, 402, 405, 418, 451):
        any_path(server, status, b"")
        assert reason(server.uri("/x"), hosts=HERE) == f"unreadable uri: the server answered {status}"
        assert server.asked.pop() and not server.asked
    assert reason(f"https://127.0.0.1:{server.server_port}/x", hosts=HERE) == reasons.NO_SECURE_CONNECTION.text
    for uri in ("http://?x", "http://h:99999/x", "http://[::1/x", "/data/a\x00b"):
        assert reason(uri) == reasons.MALFORMED_URI.text
    assert reason("/tmp/" + 300 * "x") == "unreadable uri: the system says: file name too long"
    assert reason("nosuch://x/y", schemes=("nosuch",)) == reasons.NO_CLIENT.text
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert reason("gs://bucket/x") == reasons.NO_CLIENT.text


def test_requests_name_the_software(server: Server) -> None:
    server.answers["/x"] = lambda request: request.answer(body=request.headers["User-Agent"].encode())
    assert fetch.read_image(server.uri("/x"), IngestSettings(hosts=HERE)) == f"lookalike/{__version__}".encode()
    settings = IngestSettings(hosts=HERE, user_agent="shop-search/2 (+https://shop.example)")
    assert fetch.read_image(server.uri("/x"), settings) == b"shop-search/2 (+https://shop.example)"
