"""Settings that say where images may be read: an entry that can never match is refused at the start."""

import json
from pathlib import Path

import pytest

from lookalike import config, fetch, web
from lookalike.config import IngestSettings
from lookalike.errors import ConfigInvalid


@pytest.mark.parametrize(
    ("key", "entry", "meant"),
    [
        ("hosts", "https://cdn.shop.example", "cdn.shop.example"),
        ("hosts", "https://*.shop.example/images/", "*.shop.example"),
        ("hosts", "HTTP:\\\\cdn.shop.example", "cdn.shop.example"),
        ("hosts", "//cdn.shop.example/", "cdn.shop.example"),
        ("hosts", "cdn.shop.example/images", "cdn.shop.example"),
        ("hosts", "cdn.shop.example:8443", "cdn.shop.example"),
        ("hosts", "user:pw@cdn.shop.example", "cdn.shop.example"),
        ("hosts", "cdn.shop.example.", "cdn.shop.example"),
        ("hosts", ".shop.example", "*.shop.example"),
        ("hosts", "\u00a0cdn.shop.example ", "cdn.shop.example"),
        ("hosts", "s3://media-bucket/pictures", "media-bucket"),
        ("hosts", "[::1]", "::1"),
        ("hosts", "[2001:db8::1]:8443", "2001:db8::1"),
        ("hosts", "http://[::1]:80/x", "::1"),
        ("hosts", "<https://cdn.shop.example/>", "cdn.shop.example"),
        ("hosts", r".*\.shop\.example", "*.shop.example"),
        ("hosts", r"^cdn\.shop\.example$", "cdn.shop.example"),
        ("hosts", ".*.shop.example", "*.shop.example"),
        ("hosts", "http://[2001:0DB8::0:1]/x", "2001:db8::1"),
        ("schemes", "HTTPS", "https"),
        ("schemes", "htttp", "http"),
        ("schemes", "S3n", "s3"),
        ("schemes", "https://", "https"),
        ("schemes", " s3:", "s3"),
        ("folders", "file:///data/pictures", "/data/pictures"),
        ("folders", "FILE://localhost/data/my%20pictures", "/data/my pictures"),
        ("folders", "/data/pictures/*", "/data/pictures"),
        ("folders", " /data/pictures", "/data/pictures"),
        ("folders", '"/data"', "/data"),
        ("folders", "/data/pic?", "/data"),
        ("folders", "$SHOP/pics", "/shops/one/pics"),
        ("folders", "${SHOP}", "/shops/one"),
        ("folders", "data\\pictures", "data/pictures"),
    ],
)
def test_what_can_never_match_is_refused_with_what_was_meant(
    key: str, entry: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP", "/shops/one")
    with pytest.raises(ConfigInvalid) as error:
        config.load(None, [f"ingest.{key}=[{json.dumps(entry)}]"])
    (line,) = str(error.value).splitlines()[1:]
    assert line.startswith("  --set: ingest.") and f"{entry!r} can never match: did you mean {meant}?" in line
    IngestSettings.model_validate({key: (meant,)})  # what is proposed can match


@pytest.mark.parametrize(
    "entry", ["/data/a,/data/b", "/data/a:/data/b", "/data/a; /data/b", "/data/{a,b}", "/data/{a,b}/*"]
)
def test_several_folders_in_one_entry_are_refused_with_each(entry: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"can never match: did you mean /data/a, /data/b\?"):
        config.load(None, [f"ingest.folders=[{json.dumps(entry)}]"])


@pytest.mark.parametrize(
    "name", ["a,", "a,/data/b", "a:/data/b", "{a,b}", "pic?", "$HOME", "a\\b", "~no-such-user", "*"]
)
def test_a_folder_that_exists_is_taken_as_it_stands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    for entry in (name, f"{tmp_path}/{name}"):
        assert IngestSettings(folders=(entry,)).folders == (f"{tmp_path}/{name}",)


@pytest.mark.parametrize("entry", ["file://server/share", "\\\\server\\share"])
def test_a_folder_on_another_host_is_refused(entry: str) -> None:
    with pytest.raises(ConfigInvalid, match="can never match: hosts in addresses of files are not supported; a folder"):
        config.load(None, [f"ingest.folders=[{json.dumps(entry)}]"])


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("hosts", ""),
        ("hosts", "a.example,b.example"),  # which hosts are meant is a guess
        ("hosts", "a.example b.example"),
        ("hosts", "10.0.0.0/8"),  # a network has no pattern that means the same
        ("hosts", "https://"),
        ("hosts", "cdn[1.example"),
        ("hosts", "1::2::3"),
        ("hosts", "10.0.0.0-10.0.0.9"),
        ("hosts", "cdn..example"),
        ("hosts", ".."),
        ("schemes", "http,https"),
        ("schemes", "http*"),
        ("schemes", ""),
        ("folders", ""),  # would be the current folder
        ("folders", "s3://media-bucket/pictures"),  # no folder of this machine
        ("folders", "C:\\pictures"),
        ("folders", "~no-such-user/pics"),
        ("folders", "$NO_SUCH_VARIABLE/pics"),
        ("folders", "/*"),  # means any folder, which is written as no entry
    ],
)
def test_what_means_nothing_that_can_match_is_refused(key: str, entry: str) -> None:
    with pytest.raises(ConfigInvalid, match=f"ingest.{key}: .*can never match: a .*such as"):
        config.load(None, [f"ingest.{key}=[{json.dumps(entry)}]"])


def test_every_entry_that_is_wrong_is_named() -> None:
    with pytest.raises(ConfigInvalid) as error:
        config.load(None, ["ingest.hosts=['a.example:80', 'b.example', '[::1]']", "ingest.schemes=['S3']"])
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 2
    assert "a.example:80" in lines[1] and "[::1]" in lines[1] and "S3" in lines[0]


def test_what_can_match_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ("*.shop.example", "cdn[12].shop.example", "CDN?.example", "münchen.example", "xn--mnchen-3ya.example",
             "media_bucket", "127.*", "::1", "2001:db8:*", "*")  # fmt: skip
    assert IngestSettings(hosts=hosts).hosts == hosts
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    folders = IngestSettings(folders=("pictures", "~/pictures", "/data/pictures [2026]/")).folders
    assert folders == (f"{tmp_path}/pictures", "/home/somebody/pictures", "/data/pictures [2026]")


@pytest.mark.parametrize(
    ("entry", "uri"),
    [
        ("2001:0DB8:0:0:0:0:0:1", "http://[2001:0db8::0:1]/x"),
        ("::ffff:10.0.0.1", "http://[::ffff:10.0.0.1]/x"),
        ("\uff43\uff44\uff4e.example", "https://cdn.example/x"),
        ("*.shop.example", "https://\uff43\uff44\uff4e.shop.example/x"),
    ],
)
def test_a_host_is_known_in_whatever_form_it_is_written(entry: str, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_get", lambda *_: _nothing())
    assert fetch.read_image(uri, IngestSettings(hosts=(entry,))) == b""


@pytest.mark.parametrize("pattern", ["münchen.example", "MÜNCHEN.*", "xn--mnchen-3ya.example"])
def test_a_host_beyond_ascii_is_known_in_both_its_forms(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_get", lambda *_: _nothing())
    for uri in ("https://münchen.example/x", "https://xn--mnchen-3ya.example/x"):
        assert fetch.read_image(uri, IngestSettings(hosts=(pattern,))) == b""


async def _nothing() -> bytes:
    return b""


@pytest.mark.parametrize("text", ["", "shop\nX-Other: 1", "lädchen"])
def test_a_user_agent_is_a_line_of_ascii(text: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"ingest\.user_agent"):
        config.load(None, [f"ingest.user_agent={text}"])
