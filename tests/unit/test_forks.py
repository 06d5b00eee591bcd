"""A process that used a catalog, and its children and grandchildren by fork, as a service that preloads has them."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.unit.test_reader import Images, build, build_pack, fit_predictor, publish

from lookalike import config, locks
from lookalike.kernels.models import embedder

SERVICE = """
import os, sys, threading
import numpy as np
{before}
from lookalike import reader

root, picture = sys.argv[1:]
catalog = reader.open(root, cache=root + "/cache")
shoes, boots = (reader.open(root, category, cache=root + "/cache") for category in ("shoes", "shoes/boots"))
query = np.random.default_rng(7).standard_normal(catalog.dim)

def ask():
    return {asked}

def ask_in_children(generations, expected, leave):
    child = os.fork()
    if not child:
        assert ask() == expected, "another answer"
        asking = threading.Thread(target=ask)
        asking.start()
        asking.join()
        if generations > 1:
            ask_in_children(generations - 1, expected, leave)
        leave(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"a child ended with {{status}}"

expected = ask()
ask_in_children(2, expected, sys.exit)  # as workers of a web server: all that they hold is freed
asking = threading.Thread(target=lambda: ask_in_children(1, ask(), os._exit))  # as multiprocessing in a thread
asking.start()
asking.join()
assert ask() == expected
print("all the same")
"""

ASKED = {
    "search": "catalog.search(query, 5)",
    "search of an IVF index": "shoes.search(query, 5)",
    "search of a pack": "boots.search(query, 5)",
    "search of some categories": "catalog.search(query, 5, categories=2)",
    "similar": 'catalog.similar("b001", 5)',
    "similar in a category": 'shoes.similar("p001", 5)',
    "predict_category": "catalog.predict_category(query)",
    "refresh": "(catalog.refresh(), catalog.predict_category(query), catalog.version)",
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A catalog of the default model, of an index and of a pack, and a picture."""
    folder = tmp_path_factory.mktemp("forked")
    picture = folder / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (240, 300, 3), dtype=np.uint8)).save(picture)
    settings = config.load()
    worker = embedder.get_embedder(settings.model, settings.embed, os.cpu_count() or 1, "cpu")
    parts = {"shoes": Images(1), "bags": Images(2, prefix="b"), "shoes/boots": Images(3, prefix="t")}
    rng = np.random.default_rng(5)
    for images in parts.values():
        vectors = rng.standard_normal((len(images.vectors), worker.dim))
        images.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    build(folder, "shoes", "v1", parts.pop("shoes"), "IVF4,Flat", model_id=worker.model_id)
    build_pack(folder, "v1", parts, model_id=worker.model_id)
    publish(folder, {"shoes": "v1", "bags": "v1", "shoes/boots": "v1"}, model_id=worker.model_id)
    fit_predictor(folder, worker.model_id, dim=worker.dim)
    return folder, picture


def serve(catalog: tuple[Path, Path], asked: str, before: str = "") -> str:
    program = SERVICE.format(asked=asked, before=before)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, catalog)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all the same\n"
    return done.stderr


@pytest.mark.parametrize("asked", ASKED)
def test_children_and_grandchildren_answer_as_their_parent_does(catalog: tuple[Path, Path], asked: str) -> None:
    serve(catalog, ASKED[asked])


@pytest.mark.slow
def test_children_and_grandchildren_open_a_catalog(catalog: tuple[Path, Path]) -> None:
    serve(catalog, 'reader.open(root, "shoes/boots", cache=root + "/cache").predict_category(query)')


@pytest.mark.slow
def test_children_and_grandchildren_embed_a_picture(catalog: tuple[Path, Path]) -> None:
    serve(catalog, "[match.product_id for match in catalog.search_image(picture, 5)]")


@pytest.mark.slow
def test_a_parent_may_have_used_the_native_libraries_itself(catalog: tuple[Path, Path]) -> None:
    """Each of them then has threads that the child lacks."""
    before = f"""
import deltalake, torch
deltalake.DeltaTable({f"{catalog[0]}/tables/shards"!r}).to_pyarrow_table()
torch.set_num_threads(4)
torch.rand(2000, 2000).sum()
"""
    serve(catalog, "(catalog.refresh(), [m.product_id for m in catalog.search_image(picture, 5)])", before)


def test_a_child_that_was_first_to_read_needs_no_other_process(catalog: tuple[Path, Path]) -> None:
    program = """
import os, subprocess, sys
from lookalike import reader
subprocess.run = None
child = os.fork()
if not child:
    reader.open(sys.argv[1], cache=sys.argv[1] + "/cache").refresh()
    sys.exit()
sys.exit(os.waitpid(child, 0)[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(catalog[0])], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def held() -> Iterator[locks.Lock]:
    """A lock that another thread holds."""
    lock, taken, done = locks.Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    holding = threading.Thread(target=hold)
    holding.start()
    taken.wait()
    yield lock
    done.set()
    holding.join()


def test_a_lock_that_another_thread_held_is_free_in_a_child(held: locks.Lock) -> None:
    def take() -> None:
        with held:
            os._exit(7)

    child = multiprocessing.get_context("fork").Process(target=take)
    child.start()
    child.join(30)
    assert child.exitcode == 7
    assert not held._lock.acquire(blocking=False), "in the parent it is still held"
