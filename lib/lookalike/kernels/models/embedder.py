"""A stream of encoded pictures becomes a stream of embeddings: threads read and decode ahead of the forward pass."""

import ctypes
import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lookalike.boxes import WHOLE, Crop, Source
from lookalike.config import EmbedSettings, ModelSettings
from lookalike.errors import ModelMismatch
from lookalike.kernels.models.engines import Engine, Forward, choose_engine
from lookalike.kernels.models.load import Model, load_model
from lookalike.kernels.pictures.decoder import Decoder
from lookalike.kernels.pictures.images import DecodedPicture, Rejection
from lookalike.unreadable import reason_of


@dataclass(frozen=True)
class Outcome:
    """`embedding`: float32 (dim,), L2-normalised, or None and a `reason`. `width`, `height`: upright, pixels."""

    key: Any
    embedding: NDArray[np.float32] | None
    width: int | None
    height: int | None
    reason: str | None


def get_embedder(
    model_settings: ModelSettings, embed_settings: EmbedSettings, threads: int, device: str, model_id: str | None = None
) -> "Embedder":
    """Return the Embedder of these settings, which is built once per process.

    Raises ModelMismatch if it is of another model than `model_id`, if that is given.
    """
    worker = _build_embedder(model_id, model_settings, embed_settings, threads, device)
    if model_id not in (None, worker.model_id):
        raise ModelMismatch(
            f"this worker's model is {worker.model_id}, the run's is {model_id}: give all machines the same model file"
        )
    return worker


@lru_cache(maxsize=1)  # by `model_id`, too: a worker may live to see another model file
def _build_embedder(
    _model_id: str | None, model_settings: ModelSettings, embed_settings: EmbedSettings, threads: int, device: str
) -> "Embedder":
    return Embedder(model_settings, embed_settings, threads, device)


class Embedder:
    """A loaded model with its engine: `threads` CPU threads, on `device` (`cpu`, `cuda`, `cuda:1`)."""

    def __init__(self, model_settings: ModelSettings, embed_settings: EmbedSettings, threads: int, device: str) -> None:
        # OpenMP's threads belong to the thread that began them. In a forked process those of the first thread are gone,
        # and it would wait for them; a thread of the engine's own begins new ones.
        self._engine_thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        model, self._forward = self._engine_thread.submit(
            _load_engine, model_settings, embed_settings.engine, threads, device
        ).result()
        self.model_id = model.model_id
        self.dim = model.dim
        self._settings = embed_settings
        self._decode = Decoder(
            model.preprocessing, embed_settings.max_pixels, embed_settings.min_side_px, embed_settings.decode_timeout_s
        )
        # More than cores, as a thread also waits for remote bytes.
        self._decode_threads = embed_settings.decode_threads or 2 * threads + 2
        _alive.add(self)

    def embed(self, images: Iterable[tuple[Any, Source | Crop]]) -> Iterator[Outcome]:
        """One Outcome for each (key, picture or part of one), in their order.

        While one batch of `batch_images` is in the forward pass, the next is read and decoded. What is wrong with one
        picture is its outcome's reason; what is wrong with the forward pass or with `images` itself is raised.
        """
        with ThreadPoolExecutor(self._decode_threads, thread_name_prefix="decode") as pool:
            decoded = self._decode_ahead(images, pool)
            try:
                while batch := list(islice(decoded, self._settings.batch_images)):
                    yield from self._embed_batch(batch)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _decode_ahead(
        self, images: Iterable[tuple[Any, Source | Crop]], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[Any, DecodedPicture | Rejection]]:
        """Pictures in order, while up to `batch_images` more, of `batch_bytes` together, are under way."""
        ahead: deque[tuple[Any, int, Future[DecodedPicture | Rejection]]] = deque()
        ahead_bytes = 0
        for key, image in images:
            crop = image if isinstance(image, Crop) else Crop(image, WHOLE)
            # One still to be read will live in its thread only.
            size_bytes = len(crop.source) if isinstance(crop.source, bytes) else 0
            ahead.append((key, size_bytes, pool.submit(self._read_and_decode, crop)))
            ahead_bytes += size_bytes
            while len(ahead) > self._settings.batch_images or (
                len(ahead) > 1 and ahead_bytes > self._settings.batch_bytes
            ):
                first, first_bytes, future = ahead.popleft()
                ahead_bytes -= first_bytes
                yield first, future.result()
        for key, _, future in ahead:
            yield key, future.result()

    def _read_and_decode(self, crop: Crop) -> DecodedPicture | Rejection:
        source = crop.source
        if not isinstance(source, bytes):
            try:
                source = source()
            except Exception as error:  # every file system has its own
                return Rejection(reason_of(error))
        return self._decode(source, crop.box)

    def _embed_batch(self, batch: list[tuple[Any, DecodedPicture | Rejection]]) -> Iterator[Outcome]:
        pixels = [picture.pixels for _, picture in batch if isinstance(picture, DecodedPicture)]
        embeddings = iter(self._engine_thread.submit(self._forward, np.stack(pixels)).result() if pixels else ())
        for key, picture in batch:
            if isinstance(picture, DecodedPicture):
                yield Outcome(key, next(embeddings), picture.width, picture.height, None)
            else:
                yield Outcome(key, None, picture.width, picture.height, picture.reason)


def _load_engine(settings: ModelSettings, engine: Engine, threads: int, device: str) -> tuple[Model, Forward]:
    torch.set_num_threads(threads)  # before the model is loaded: a pool of threads, once grown, never shrinks
    model = load_model(settings)
    return model, choose_engine(model, engine, threads, device)


_alive: "weakref.WeakSet[Embedder]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a forked process: build another Embedder, and never free one of the parent's, as that joins its threads."""
    for embedder in _alive:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(embedder))
    _alive.clear()
    _build_embedder.cache_clear()


os.register_at_fork(after_in_child=_leave_to_parent)
