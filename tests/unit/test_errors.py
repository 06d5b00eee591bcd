"""Parts of messages."""

from lookalike.errors import first_few


def test_a_message_names_five_and_counts_the_rest() -> None:
    assert first_few(["a"]) == "a"
    assert first_few(list("abcde")) == "a, b, c, d, e"
    assert first_few(list("abcdefg"), "; ") == "a; b; c; d; e and 2 more"
