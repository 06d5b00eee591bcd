"""Pictures as a training reads them: read and decoded as for embedding, then stored small.

As JPEG of quality 95: about 20 KB for 258 pixels a side, decoded in 1 to 2 ms. Measured against it, a PNG has four
times the bytes and takes three times as long, lossless WebP three times the bytes, and plain pixels ten times.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
from PIL import Image
from pyspark.sql import DataFrame
from pyspark.sql.types import BinaryType, StringType, StructType

from lookalike import fetch
from lookalike.config import EmbedSettings, IngestSettings, Settings
from lookalike.kernels.pictures.decoder import Decoder
from lookalike.kernels.pictures.images import Rejection
from lookalike.spark.contents.embedding_udf import task_share
from lookalike.spark.progress import Count
from lookalike.unreadable import reason_of

if TYPE_CHECKING:  # its module loads torch, of which the driver has no need
    from lookalike.kernels.models.networks import Preprocessing

_QUALITY = 95


def store_pictures(images: DataFrame, preprocessing: "Preprocessing", settings: Settings, count: Count) -> DataFrame:
    """`images` (uri, content, and more) with `content_hash`, and `picture` or the `reason` for none, in their place.

    If they have a content_hash already, equal ones must be in one task, and give one row; carried bytes of another hash
    give none. What is read by uri is taken as it is: a server may encode each answer anew.
    """
    taken = ("uri", "content", "content_hash")
    schema = StructType([field for field in images.schema.fields if field.name not in taken])
    for name, kind in (("content_hash", StringType()), ("picture", BinaryType()), ("reason", StringType())):
        schema = schema.add(name, kind)
    # Its class would load torch in the workers.
    plain = tuple(vars(preprocessing).items())
    return images.mapInArrow(partial(_stored_batches, plain, settings, count, schema.names), schema)


_Plain = tuple[tuple[str, Any], ...]
_Source = tuple[int, str | None, bytes | str]
"""Row of the batch, content_hash if it is known, and the bytes or the uri."""


def _sources(batch: pa.RecordBatch, seen: set[str]) -> Iterator[_Source]:
    """The pictures of a batch but for contents that were seen before."""
    hashed = "content_hash" in batch.schema.names
    for row, (uri, content) in enumerate(zip(batch["uri"], batch["content"], strict=True)):
        source = content.as_py() if content.is_valid else uri.as_py()
        if not hashed:
            yield row, None, source
            continue
        content_hash = batch["content_hash"][row].as_py()
        is_other = isinstance(source, bytes) and hashlib.sha256(source).hexdigest() != content_hash
        if not is_other and content_hash not in seen:
            seen.add(content_hash)
            yield row, content_hash, source


def _stored_batches(
    preprocessing: _Plain, settings: Settings, count: Count, names: list[str], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    store = partial(_stored, _decoder(os.getpid(), preprocessing, settings.embed), settings.ingest)
    threads = settings.embed.decode_threads or 2 * task_share()[0] + 2  # more than cores, as some wait for bytes
    seen: set[str] = set()
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            given = list(_sources(batch, seen))
            hashes, pictures, reasons = zip(*pool.map(store, given), strict=True) if given else ((), (), ())
            kept = batch.take(pa.array([row for row, _, _ in given], pa.int32()))
            stored = {
                "content_hash": pa.array(hashes, pa.string()),
                "picture": pa.array(pictures, pa.binary()),
                "reason": pa.array(reasons, pa.string()),
            }
            columns = [stored[name] if name in stored else kept[name] for name in names]
            yield pa.RecordBatch.from_arrays(columns, names)
            count(batch.num_rows)


def _stored(decode: Decoder, settings: IngestSettings, given: _Source) -> tuple[str | None, bytes | None, str | None]:
    """(content_hash, JPEG, None), or a reason in its place."""
    _, content_hash, source = given
    try:
        content = source if isinstance(source, bytes) else fetch.read_image(source, settings)
    except Exception as error:  # every file system has its own
        return content_hash, None, reason_of(error)
    content_hash = content_hash or hashlib.sha256(content).hexdigest()
    decoded = decode(content)
    if isinstance(decoded, Rejection):
        return content_hash, None, decoded.reason
    file = BytesIO()
    Image.fromarray(decoded.pixels).save(file, "JPEG", quality=_QUALITY)
    return content_hash, file.getvalue(), None


@lru_cache(maxsize=2)
def _decoder(_process: int, preprocessing: _Plain, settings: EmbedSettings) -> Decoder:
    """One for a Python worker: its processes are slow to start."""
    given = cast("Preprocessing", SimpleNamespace(**dict(preprocessing)))
    return Decoder(given, settings.max_pixels, settings.min_side_px, settings.decode_timeout_s)
