"""The stream of outcomes: order, bounds, one bad picture among good ones, errors of others."""

import gc
import io
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from lookalike import reasons
from lookalike.config import EmbedSettings, ModelSettings
from lookalike.kernels.models.embedder import Embedder, get_embedder
from lookalike.kernels.models.load import load_model
from lookalike.kernels.pictures.images import DecodedPicture, decode


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (40 + seed, 60, 3), dtype=np.uint8)
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "weights.pt"
    torch.save(timm.create_model("test_efficientnet").state_dict(), path)
    return ModelSettings(name="timm/test_efficientnet", weights=str(path))


def build(model: ModelSettings, **settings: object) -> Embedder:
    return Embedder(model, EmbedSettings.model_validate({"engine": "torch", **settings}), threads=1, device="cpu")


def test_outcomes_come_in_order_with_the_embedding_of_their_picture(model: ModelSettings) -> None:
    sources = [(n, picture(n)) for n in range(11)]

    def slowly(n: int) -> Callable[[], bytes]:
        def read() -> bytes:
            time.sleep(0.02 * (n % 3))
            return sources[n][1]

        return read

    loaded = load_model(model)
    for given in (sources, [(n, slowly(n)) for n in range(11)]):
        outcomes = list(build(model, batch_images=4).embed(given))
        assert [outcome.key for outcome in outcomes] == list(range(11))
        for (n, content), outcome in zip(sources, outcomes, strict=True):
            decoded = decode(content, loaded.preprocessing, 10**6, 16)
            assert isinstance(decoded, DecodedPicture)
            expected = loaded.module(torch.from_numpy(decoded.pixels[None])).numpy()[0]
            assert outcome.embedding is not None
            assert outcome.embedding.dtype == np.float32
            np.testing.assert_allclose(outcome.embedding, expected, atol=1e-4)
            assert (outcome.width, outcome.height, outcome.reason) == (60, 40 + n, None)


def test_one_bad_picture_does_not_touch_its_neighbours(model: ModelSettings, tmp_path: Path) -> None:
    def secret() -> bytes:
        raise ValueError("https://host/file?signature=hush")

    sources: list[tuple[str, bytes | Callable[[], bytes]]] = [
        ("good", picture(0)),
        ("text", b"not a picture"),
        ("missing", (tmp_path / "none.jpg").read_bytes),
        ("secret", secret),
        ("empty", b""),
        ("also good", picture(1)),
    ]
    for batch_images in (1, 2, 100):
        outcomes = list(build(model, batch_images=batch_images).embed(sources))
        assert [outcome.key for outcome in outcomes] == [key for key, _ in sources]
        assert [outcome.embedding is None for outcome in outcomes] == [False, True, True, True, True, False]
        told = [outcome.reason or "" for outcome in outcomes]
        assert told[1] == reasons.NOT_AN_IMAGE.text
        assert told[2] == reasons.NOT_FOUND.text
        assert told[3].startswith("unreadable") and "hush" not in told[3]
        assert told[4] == reasons.ZERO_BYTES.text


def test_nothing_and_only_bad_pictures(model: ModelSettings) -> None:
    worker = build(model)
    assert list(worker.embed([])) == []
    assert [outcome.reason for outcome in worker.embed([("a", b""), ("b", b"")])] == [reasons.ZERO_BYTES.text] * 2


@pytest.mark.parametrize(
    ("settings", "most_ahead"),
    [({"batch_images": 4}, 2 * 4 + 1), ({"batch_images": 4, "batch_bytes": 1}, 4 + 2)],
)
def test_little_is_taken_ahead(model: ModelSettings, settings: dict[str, int], most_ahead: int) -> None:
    """By rows: a batch and its successor. By bytes: with room for one picture, a batch and one picture more."""
    taken = 0

    def count() -> Iterator[tuple[int, bytes]]:
        nonlocal taken
        for n in range(40):
            taken += 1
            yield n, picture(n)

    worker = build(model, **settings)
    for done, _ in enumerate(worker.embed(count())):
        assert taken - done <= most_ahead
    assert taken == 40


def test_the_next_batch_is_decoded_during_the_forward_pass(model: ModelSettings) -> None:
    """The forward pass waits for a picture of the next batch: it comes only if it is read meanwhile."""
    worker = build(model, batch_images=2)
    read = threading.Event()
    forward = worker._forward

    def waiting(batch: np.ndarray) -> np.ndarray:
        assert read.wait(timeout=60)
        return forward(batch)

    def last() -> bytes:
        read.set()
        return picture(3)

    worker._forward = waiting
    assert len(list(worker.embed([(0, picture(0)), (1, picture(1)), (2, picture(2)), (3, last)]))) == 4


def test_errors_that_are_no_pictures_fault_are_raised(model: ModelSettings) -> None:
    worker = build(model, batch_images=2)

    def broken() -> Iterator[tuple[int, bytes]]:
        yield 0, picture(0)
        raise ConnectionError("upstream")

    with pytest.raises(ConnectionError, match="upstream"):
        list(worker.embed(broken()))

    def out_of_memory(_batch: np.ndarray) -> np.ndarray:
        raise MemoryError

    worker._forward = out_of_memory
    with pytest.raises(MemoryError):
        list(worker.embed([(n, picture(n)) for n in range(9)]))


def test_abandoning_the_stream_ends_its_threads(model: ModelSettings) -> None:
    stream: Any = build(model, batch_images=2).embed((n, picture(n)) for n in range(1000))
    next(stream)
    stream.close()
    deadline = time.monotonic() + 60
    while any(thread.name.startswith("decode") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_built_once_per_process_and_alive_in_a_forked_one(model: ModelSettings, engine: str) -> None:
    settings = EmbedSettings.model_validate({"engine": engine, "batch_images": 2})
    torch.set_num_threads(2)
    torch.rand(500, 500).sum()  # this thread now has threads of its own
    worker = get_embedder(model, settings, 2, "cpu")
    assert get_embedder(model, settings, 2, "cpu") is worker
    (expected,) = worker.embed([(0, picture(0))])
    child = os.fork()
    if child == 0:
        (outcome,) = get_embedder(model, settings, 2, "cpu").embed([(0, picture(0))])
        vectors = [np.array(embedded.embedding) for embedded in (outcome, expected)]
        os._exit(0 if np.allclose(vectors[0], vectors[1], atol=1e-5) else 1)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the forked process hangs")
        time.sleep(0.05)
    assert ended == (child, 0)


def test_what_a_forked_process_inherits_is_never_freed(model: ModelSettings) -> None:
    """Freeing it joins threads that only the parent has."""
    freed: list[bool] = []
    worker = build(model)
    weakref.finalize(worker, freed.append, True)
    gc.collect()  # what other tests left must not be freed in the child
    child = os.fork()
    if child == 0:
        del worker
        gc.collect()
        os._exit(len(freed))
    assert os.waitpid(child, 0) == (child, 0)
    del worker
    gc.collect()
    assert freed
