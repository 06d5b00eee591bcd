"""One class per failure. Each message says what is wrong, where, and how to mend it."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

_NAMED = 5


def first_few(parts: Sequence[str], separator: str = ", ") -> str:
    """The first of `parts`, for a message, and how many more there are."""
    more = f" and {len(parts) - _NAMED:,} more" if len(parts) > _NAMED else ""
    return f"{separator.join(parts[:_NAMED])}{more}"


class LookalikeError(Exception):
    """Any failure that the user can act on. Jobs print its message and exit with `exit_code`."""

    exit_code = 1


class ConfigInvalid(LookalikeError):
    """The configuration has problems; the message lists all of them."""

    exit_code = 2


class ManifestInvalid(LookalikeError):
    """The manifest can't be read as one: missing, empty, or with wrong columns."""

    exit_code = 2


class ManifestChanged(LookalikeError):
    """The manifest is not what the run, or the last `ingest`, began with, so nothing was published."""

    exit_code = 2


class FileDamaged(LookalikeError):
    """A Parquet file of the input, or of a table, can't be read to its end."""

    exit_code = 2


class RootUnusable(LookalikeError):
    """The root can't be written to, or is not a catalog."""

    exit_code = 2


class RootBusy(LookalikeError):
    """Another run is writing below the root, on a store that takes one at a time."""


class ModelInvalid(LookalikeError):
    """A model name, file or layer can't be used."""

    exit_code = 2


class TrainingImpossible(LookalikeError):
    """The catalog, or the click log, does not hold what a training needs."""

    exit_code = 2


class ModelForgot(LookalikeError):
    """A training made the model worse at pictures of another kind than the settings allow, so no model was written."""

    exit_code = 3


class ClicksInvalid(LookalikeError):
    """The click log can't be read as one: missing, empty, or with wrong columns."""

    exit_code = 2


class ImageRejected(LookalikeError):
    """The picture asked about can't be embedded; the message has the reason."""


class BoxInvalid(LookalikeError):
    """The box given is no part of a picture."""

    exit_code = 2


class ModelMismatch(LookalikeError):
    """Embeddings of one model meet an index of another."""

    exit_code = 2


class NotPublished(LookalikeError):
    """The category or version asked for was never published under this root."""

    exit_code = 2


class ProductUnknown(LookalikeError):
    """The product asked for has no image in this version of the category."""


class ShardDamaged(LookalikeError):
    """A shard file is missing, truncated, or differs from its checksum."""


class NotPredictable(LookalikeError):
    """A query's category can't be predicted: too little to fit on, or nothing was fitted yet."""

    exit_code = 2


class PredictorDamaged(LookalikeError):
    """The file by which categories are predicted is missing, truncated, or differs from its checksum."""


class FormatTooNew(LookalikeError):
    """The root was written by a newer version of this library."""


class PublishConflict(LookalikeError):
    """Another job moved the live pointer of a category meanwhile, so nothing was published."""


class VersionUnusable(LookalikeError):
    """The version asked for can't be live: its rows or files are gone, damaged, or were never whole."""


class GateFailed(LookalikeError):
    """A candidate version is below the configured limits, so nothing was published."""

    exit_code = 3


class TableDamaged(LookalikeError):
    """The log of a table is not whole."""


def foreseen(error: BaseException) -> LookalikeError | None:
    """The failure in plain words, where Spark and Java wrapped their stack traces round one that has them."""
    if isinstance(error, LookalikeError):
        return error
    text = f"{error}\n{getattr(error, '_stackTrace', '')}"  # of the JVM, which PySpark's errors leave out of their text
    if "No space left on device" in text:
        return LookalikeError(
            "no space left on the device: free some below the root and in Spark's local folder (spark.local.dir), then"
            " run the same command again"
        )
    if unread := re.search(r"\[FAILED_READ_FILE[^]]*\] Encountered error while reading file (\S+?)\.?\s", text):
        return FileDamaged(
            f"{unquote(unread[1])} can't be read: it is damaged, or was changed meanwhile; write it anew, and run the"
            " same command again"
        )
    for kind in LookalikeError.__subclasses__():
        # Raised in a Python worker, it comes back as text: "...lookalike.errors.ModelMismatch: message".
        _, marker, rest = text.partition(f"lookalike.errors.{kind.__name__}: ")
        if marker:
            return kind(rest.splitlines()[0])
    return None
