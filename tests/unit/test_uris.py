"""Uris as people bring them: cleaned in one way, and sent as they were given."""

from pathlib import Path

import pytest
from tests.uris import CLEAN, DIRTY

from lookalike.uris import clean_uri
from lookalike.web import to_url


@pytest.mark.parametrize(("text", "uri"), DIRTY)
def test_what_stands_around_a_uri_is_taken_off_and_its_beginning_is_one(text: str, uri: str) -> None:
    assert clean_uri(text) == uri
    assert clean_uri(uri) == uri


@pytest.mark.parametrize("uri", CLEAN)
def test_what_is_clean_stays(uri: str) -> None:
    assert clean_uri(uri) == uri


@pytest.mark.parametrize(
    "address",
    [
        "https://h.example/a%2Fb%2C%3A%27//c%20d.jpg",
        "https://h.example/x.jpg?X-Amz-Credential=AK%2F2026%2Fs3&X-Amz-Signature=a%2Bb%3D&e=%7e",
        "https://h.example/x.jpg?Policy=eyJ~_&Signature=a-b__&Key-Pair-Id=K",
        "https://h.example/a+b,(c)'!$&*;=:@~.jpg?q=[1]&r=/?",
        "https://h.example:8443/%e4%bd%a0.jpg",
        "https://h.example/.hidden/..x/a..jpg",
    ],
)
def test_a_legal_address_goes_over_the_wire_as_it_stands(address: str) -> None:
    assert str(to_url(address)) == address


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("https://h.example/a b/ü.jpg?q=ü b", "https://h.example/a%20b/%C3%BC.jpg?q=%C3%BC%20b"),
        ("https://h.example/a b%20c.jpg", "https://h.example/a%20b%20c.jpg"),
        ("https://h.example/100%.jpg?x=5%&y=%zz", "https://h.example/100%25.jpg?x=5%25&y=%25zz"),
        ('https://h.example/a"<>^`{|}.jpg', "https://h.example/a%22%3C%3E%5E%60%7B%7C%7D.jpg"),
        ("https://münchen.example/x", "https://xn--mnchen-3ya.example/x"),
        ("http://h.example\\a\\b.jpg?q=\\", "http://h.example/a/b.jpg?q=%5C"),
        ("https://h.example/a\n\tb.jpg", "https://h.example/ab.jpg"),  # as browsers do
        ("https://h.example/a/../b//./c.jpg#top", "https://h.example/b//c.jpg"),
        ("https://h.example//a/../b.jpg", "https://h.example//a/../b.jpg"),
        ("/a b//c%2Fd", "/a%20b//c%2Fd"),
        ("/\udce4.jpg", "/%E4.jpg"),  # a byte of a header that is not UTF-8
    ],
)
def test_only_what_is_illegal_is_encoded(address: str, sent: str) -> None:
    assert str(to_url(address)) == sent


@pytest.mark.parametrize("address", ["https://h.example:99999/x", "https://h.example:port/x", "https://[::1/x"])
def test_what_is_no_address_is_an_error(address: str) -> None:
    with pytest.raises(ValueError):
        to_url(address)


def test_uris_of_pathlib_are_left_to_the_reader_of_files() -> None:
    """A file may have the escapes in its name: to decode them here would be a guess."""
    uri = Path("/data/ü a.jpg").as_uri()
    assert clean_uri(uri) == uri == "file:///data/%C3%BC%20a.jpg"
