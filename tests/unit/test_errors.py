"""Parts of messages."""

from lookalike.errors import FileDamaged, first_few, foreseen


def test_a_message_names_five_and_counts_the_rest() -> None:
    assert first_few(["a"]) == "a"
    assert first_few(list("abcde")) == "a, b, c, d, e"
    assert first_few(list("abcdefg"), "; ") == "a; b; c; d; e and 2 more"


def test_a_file_that_spark_cannot_read_is_named_in_one_line() -> None:
    text = (
        "An error occurred while calling o321.collect.\n: org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] "
        "Encountered error while reading file file:///data/x%20%5B1%5D.parquet.  SQLSTATE: KD001\n\tat org.apache"
    )
    known = foreseen(RuntimeError(text))
    assert isinstance(known, FileDamaged)
    assert str(known).startswith("file:///data/x [1].parquet can't be read: it is damaged")
    assert "\n" not in str(known)
