"""Every reason for which a manifest row, a picture, a query, a click or a training picture is rejected.

Tables hold the text of a reason. docs/reasons.md is generated from here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Retried(Enum):
    """When a run tries again what was rejected; the value says it in words."""

    AT_ONCE = "three times in the run, then by each run whose manifest has the row"
    EACH_RUN = "by each run whose manifest has the row"
    ON_REQUEST = "when the image changes, or with `--retry-rejected all`"
    ON_CHANGE = "when the row changes"
    EACH_JOB = "each time the job runs"


@dataclass(frozen=True)
class Reason:
    """`text` as tables hold it; parts in braces differ from case to case. `mend`: what its reader can do about it."""

    text: str
    retried: Retried
    mend: str

    def filled(self, **values: object) -> str:
        """The text with its parts in braces replaced."""
        return self.text.format(**values)


# Manifest rows.
NO_IMAGE_ID = Reason("no image_id", Retried.ON_CHANGE, "Give each row the key of its image.")
DUPLICATE_IMAGE_ID = Reason(
    "duplicate image_id",
    Retried.ON_CHANGE,
    "Give each image a key of its own. Of the rows with one key, the one with the latest `updated_at` is taken.",
)
NO_PRODUCT_ID = Reason("no product_id", Retried.ON_CHANGE, "Give each row the key of its product.")
NO_CATEGORY = Reason("no category", Retried.ON_CHANGE, "Give each row a category, such as `women/dresses`.")
MALFORMED_CATEGORY = Reason(
    "malformed category",
    Retried.ON_CHANGE,
    "Write the category as a path whose parts are not empty, not `.` or `..`, and have no spaces around them; "
    "512 characters at most.",
)
URI_AND_CONTENT = Reason("both uri and content", Retried.ON_CHANGE, "Leave one of the two empty.")
NO_URI_NO_CONTENT = Reason("neither uri nor content", Retried.ON_CHANGE, "Say where the image is, or carry its bytes.")
NO_SHA256 = Reason(
    "content_hash is no sha256 in hex",
    Retried.ON_CHANGE,
    "Give the sha256 of the image's bytes as 64 hexadecimal digits, or leave the column empty.",
)
CONTENT_OF_OTHER_HASH = Reason(
    "content is not that of content_hash", Retried.ON_CHANGE, "Give the sha256 of the bytes that the row carries."
)
DELETED = Reason("deleted", Retried.ON_CHANGE, "Nothing: the image was deleted before any run read it.")
NO_EMBEDDING = Reason(
    "no embedding", Retried.ON_CHANGE, "Give every row an embedding, or none: then pictures are read."
)
EMBEDDING_UNUSABLE = Reason(
    "embedding is zero or not finite", Retried.ON_CHANGE, "Give finite numbers that are not all zero."
)
EMBEDDING_OF_OTHER_SIZE = Reason(
    "embedding has {size} values, most others {dim}", Retried.ON_CHANGE, "Give embeddings of one model."
)

# Reading a picture.
UNREADABLE = "unreadable uri: "
"""How the reason begins of an image whose uri could not be read; each run that includes it tries again."""
NOT_ALLOWED = "uri not allowed: "
"""How the reason begins of a uri from which the settings let no image be read."""

TIMED_OUT = Reason(
    f"{UNREADABLE}timed out",
    Retried.AT_ONCE,
    "See whether the server is slow; `ingest.connect_timeout_s`, `read_timeout_s` and `image_timeout_s` set the time.",
)
NO_CONNECTION = Reason(
    f"{UNREADABLE}no connection",
    Retried.AT_ONCE,
    "See whether the host's name is right, and whether the executors can reach it.",
)
SERVER_ERROR = Reason(
    f"{UNREADABLE}server error",
    Retried.AT_ONCE,
    "See the server's log: it answered 408, 425, 429 or 5xx. After 429 and 503, lower `ingest.host_requests` and "
    "`host_requests_per_s`, or run again later.",
)
NO_SECURE_CONNECTION = Reason(
    f"{UNREADABLE}no secure connection",
    Retried.AT_ONCE,
    "See whether the certificate has expired or its chain is not whole, and whether the port speaks TLS.",
)
ANSWERED = Reason(
    f"{UNREADABLE}the server answered {{status}}",
    Retried.EACH_RUN,
    "Open the address in a browser, and look the HTTP status up.",
)
MALFORMED_ANSWER = Reason(
    f"{UNREADABLE}the answer is not proper HTTP", Retried.EACH_RUN, "See whether the port is that of a web server."
)
MALFORMED_URI = Reason(
    f"{UNREADABLE}malformed address",
    Retried.EACH_RUN,
    "Give an address that a browser opens, or the path of a file; host and port must be valid.",
)
TWO_FILES = Reason(
    f"{UNREADABLE}there are two files, one with and one without %-escapes in its name",
    Retried.EACH_RUN,
    "Give the path without `file:`; it is taken as it stands.",
)
NO_CLIENT = Reason(
    f"{UNREADABLE}no client for this kind of address is installed",
    Retried.EACH_RUN,
    "Install the package of fsspec for the scheme on all machines, such as `gcsfs` for `gs:` or `adlfs` for `abfs:`.",
)
NO_CREDENTIALS = Reason(
    f"{UNREADABLE}no credentials for the store",
    Retried.EACH_RUN,
    "Give the keys of the store in the environment of the executors.",
)
BYTES_OF_OTHER_HASH = Reason(
    f"{UNREADABLE}its bytes are not those of content_hash",
    Retried.EACH_RUN,
    "Give the sha256 of the image as the server answers it, or leave `content_hash` empty.",
)
NOT_FOUND = Reason(
    f"{UNREADABLE}not found",
    Retried.EACH_RUN,
    "Give the address at which the image is; one without `https://` is taken for a path on the executors' disks.",
)
PERMISSION_DENIED = Reason(
    f"{UNREADABLE}permission denied",
    Retried.EACH_RUN,
    "Let the executors read it. A signed address may have expired; a host may want another `ingest.user_agent`.",
)
FAILED = Reason(
    f"{UNREADABLE}the system says: {{error}}", Retried.EACH_RUN, "See whether disk and address are in order."
)
OTHERWISE_UNREADABLE = Reason(
    f"{UNREADABLE}the store's client failed with {{error}}",
    Retried.EACH_RUN,
    "Look the error up in the documentation of the store's client. Older ledgers have the error's name alone.",
)
SCHEME_NOT_ALLOWED = Reason(f"{NOT_ALLOWED}scheme", Retried.ON_REQUEST, "Add the scheme to `ingest.schemes`.")
HOST_NOT_ALLOWED = Reason(f"{NOT_ALLOWED}host", Retried.ON_REQUEST, "Add the host or bucket to `ingest.hosts`.")
FOLDER_NOT_ALLOWED = Reason(f"{NOT_ALLOWED}folder", Retried.ON_REQUEST, "Add the folder to `ingest.folders`.")
PRIVATE_ADDRESS = Reason(
    f"{NOT_ALLOWED}private address",
    Retried.ON_REQUEST,
    "If the server is yours, name it in `ingest.hosts`: without that setting only public addresses are read.",
)
CHAINED_URI = Reason(f"{NOT_ALLOWED}chained", Retried.ON_REQUEST, "Give a uri without `::`.")
NOT_A_FILE = Reason(f"{NOT_ALLOWED}not a file", Retried.ON_REQUEST, "Give a file, not a folder, a device or a pipe.")
TOO_MANY_REDIRECTS = Reason(f"{NOT_ALLOWED}too many redirects", Retried.ON_REQUEST, "Give the final address.")
TOO_LARGE = Reason(
    "beyond the size limit",
    Retried.ON_REQUEST,
    "Give a smaller file, or raise `ingest.max_image_bytes`.",
)

# What the bytes of a picture are.
ZERO_BYTES = Reason("zero bytes", Retried.ON_REQUEST, "Upload the picture again: the file is empty.")
NOT_AN_IMAGE = Reason(
    "not an image (JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF)",
    Retried.ON_REQUEST,
    "Give one of these formats; a page of HTML in place of a picture is a frequent cause.",
)
TRUNCATED = Reason("truncated or damaged", Retried.ON_REQUEST, "Upload the picture again.")
TOO_MANY_PIXELS = Reason(
    "beyond the pixel limit", Retried.ON_REQUEST, "Give a smaller picture, or raise `embed.max_pixels`."
)
TOO_SMALL = Reason("too small", Retried.ON_REQUEST, "Give a larger picture, or lower `embed.min_side_px`.")
ONE_COLOUR = Reason(
    "one colour (a placeholder)", Retried.ON_REQUEST, "Give a picture of the product: this one is a plain surface."
)
BEYOND_LIMITS = Reason(
    "takes too much time or memory to decode",
    Retried.ON_REQUEST,
    "Save the picture anew with an editor, or raise `embed.decode_timeout_s`.",
)

# Queries.
NO_PROBE = Reason("none of uri, content and embedding", Retried.EACH_JOB, "Give each query one of them.")
SEVERAL_PROBES = Reason("more than one of uri, content and embedding", Retried.EACH_JOB, "Give each query one of them.")
EMBEDDING_NEEDED = Reason(
    "no embedding, and the catalog's were brought",
    Retried.EACH_JOB,
    "Give the query's embedding by the model that made the catalog's.",
)
NO_QUERY_ID = Reason("no query_id", Retried.EACH_JOB, "Give each query a key.")
DUPLICATE_QUERY_ID = Reason("duplicate query_id", Retried.EACH_JOB, "Give each query a key of its own.")
CATEGORY_NOT_PUBLISHED = Reason(
    "category is not published", Retried.EACH_JOB, "Give a category as `status` shows it, or one above it, or none."
)

# Pictures of the ledger that a training skips.
NOT_EMBEDDED = Reason(
    "not embedded by this model", Retried.EACH_JOB, "Run the pipeline with the model that is to be fine-tuned."
)
COPY = Reason("a copy of another picture", Retried.EACH_JOB, "Nothing: one picture of each content is enough.")
REJECTED_BEFORE = Reason("rejected", Retried.EACH_JOB, "See why with `status --rejected`.")
NO_LABEL = Reason("no label", Retried.EACH_JOB, "Give the product a value for one of `fine_tune.labels`.")
NO_UNIT = Reason(
    "no attribute {attribute} to split by", Retried.EACH_JOB, "Give the attribute that `fine_tune.split_by` names."
)
GONE = Reason("no longer in the manifest", Retried.EACH_JOB, "Give the training the manifest of the last run.")

# Rows of a click log that a training skips.
INCOMPLETE = Reason("without query_id, product_id or clicked", Retried.EACH_JOB, "Give all three.")
SHOWN_TWICE = Reason("a product shown twice for one query", Retried.EACH_JOB, "Nothing: it counts once.")
UNKNOWN_PRODUCT = Reason("of an unknown product", Retried.EACH_JOB, "Run the pipeline with the product's images.")
NO_PICTURE = Reason("of a product without a usable picture", Retried.EACH_JOB, "See why with `status --rejected`.")
NO_CLICK = Reason("of a query without a usable click", Retried.EACH_JOB, "Nothing: it teaches nothing.")
ONLY_CLICKS = Reason(
    "of a query with nothing usable that was not clicked", Retried.EACH_JOB, "Log what was shown and not clicked, too."
)
UNSEEN = Reason(
    "below what was seen", Retried.EACH_JOB, "If shoppers see more of a page, raise `fine_tune.click_reach`."
)
BEYOND = Reason(
    "beyond fine_tune.triplets_per_query", Retried.EACH_JOB, "To take more of one query, raise that setting."
)
NO_QUERY = Reason("of a query without a picture", Retried.EACH_JOB, "Give `uri`, `content` or `query_image_id`.")
SEVERAL_QUERIES = Reason(
    "of a query with several pictures", Retried.EACH_JOB, "Give each search a `query_id` of its own."
)
UNKNOWN_QUERY = Reason(
    "of a query_image_id without a usable picture", Retried.EACH_JOB, "Give an `image_id` that is embedded."
)
OWN = Reason("of the query's own product", Retried.EACH_JOB, "Nothing: a product is no answer to its own picture.")
OTHER_SIDE = Reason(
    "of a product on the other side of the split", Retried.EACH_JOB, "Nothing: training and validation stay apart."
)
CLICK_FAR = Reason(
    "clicked, but unlike the query", Retried.EACH_JOB, "If such clicks are meant, raise `fine_tune.clicked_within`."
)
UNCLICKED_NEAR = Reason(
    "not clicked, but like the query or what was clicked",
    Retried.EACH_JOB,
    "If such products are wrong answers, lower `fine_tune.unclicked_beyond`.",
)
OF_QUERY = "query picture: "
"""How the reason begins of clicks for a query whose own picture was rejected; that picture's reason follows."""

ROWS = (
    NO_IMAGE_ID, DUPLICATE_IMAGE_ID, NO_PRODUCT_ID, NO_CATEGORY, MALFORMED_CATEGORY, URI_AND_CONTENT, NO_URI_NO_CONTENT,
    NO_SHA256, CONTENT_OF_OTHER_HASH, DELETED, NO_EMBEDDING, EMBEDDING_UNUSABLE, EMBEDDING_OF_OTHER_SIZE,
)  # fmt: skip
READING = (
    TIMED_OUT, NO_CONNECTION, NO_SECURE_CONNECTION, SERVER_ERROR, ANSWERED, MALFORMED_ANSWER, BYTES_OF_OTHER_HASH,
    NOT_FOUND, PERMISSION_DENIED, MALFORMED_URI, TWO_FILES, NO_CLIENT, NO_CREDENTIALS, FAILED, OTHERWISE_UNREADABLE,
    SCHEME_NOT_ALLOWED, HOST_NOT_ALLOWED, FOLDER_NOT_ALLOWED, PRIVATE_ADDRESS, CHAINED_URI, NOT_A_FILE,
    TOO_MANY_REDIRECTS, TOO_LARGE,
)  # fmt: skip
PICTURES = (ZERO_BYTES, NOT_AN_IMAGE, TRUNCATED, TOO_MANY_PIXELS, TOO_SMALL, ONE_COLOUR, BEYOND_LIMITS)
QUERIES = (NO_PROBE, SEVERAL_PROBES, EMBEDDING_NEEDED, NO_QUERY_ID, DUPLICATE_QUERY_ID, CATEGORY_NOT_PUBLISHED)
TRAINING_PICTURES = (NOT_EMBEDDED, COPY, REJECTED_BEFORE, NO_LABEL, NO_UNIT, GONE)
CLICKS = (
    INCOMPLETE, SHOWN_TWICE, UNKNOWN_PRODUCT, NO_PICTURE, NO_CLICK, ONLY_CLICKS, UNSEEN, BEYOND, NO_QUERY,
    SEVERAL_QUERIES, UNKNOWN_QUERY, OWN, OTHER_SIDE, CLICK_FAR, UNCLICKED_NEAR,
)  # fmt: skip
ALL = (*ROWS, *READING, *PICTURES, *QUERIES, *TRAINING_PICTURES, *CLICKS)

TRANSIENT = frozenset(reason.text for reason in ALL if reason.retried is Retried.AT_ONCE)
"""Texts of the reasons that may pass at any moment: it is worth while to try again at once."""


def texts(reasons: Iterable[Reason]) -> tuple[str, ...]:
    """The texts of `reasons`, in their order."""
    return tuple(reason.text for reason in reasons)
