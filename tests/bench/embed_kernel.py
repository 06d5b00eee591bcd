"""The embed kernel against its forward pass alone, and the engines against each other; one process, no Spark.

    PYTHONPATH=lib python tests/bench/embed_kernel.py [--model default] [--images DIR] [--threads 1] [--rounds 3]

On a GPU where torch finds one, else on the CPU.
"""

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lookalike.config import DEFAULT_MODEL, EmbedSettings, ModelSettings, Precision
from lookalike.kernels.models.embedder import Embedder
from lookalike.kernels.models.engines import Engine, choose_engine
from lookalike.kernels.models.load import load_model
from lookalike.kernels.pictures.images import DecodedPicture, decode

SHARED_IMAGES = Path(__file__).resolve().parents[3] / "shared" / "data" / "magento"


def run_all(forward: Callable[[Any], object], batches: Iterable[Any]) -> None:
    for batch in batches:
        forward(batch)


def images_per_s(n: int, rounds: int, work: Callable[[], object]) -> float:
    """The best of `rounds`, after one to warm up."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return n / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--images", type=Path, default=SHARED_IMAGES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-images", type=int, default=32)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])

    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch_images = arguments.batch_images
    n = batch_images * (16 if device == "cuda" else 2)
    files = sorted(arguments.images.rglob("*.jpg"))[:: 1 if device == "cuda" else 4]
    contents = [path.read_bytes() for path in itertools.islice(itertools.cycle(files), n)]
    print(f"{n} pictures, batches of {batch_images}, {arguments.threads} threads, {device}")

    settings = ModelSettings(name=arguments.model)
    model = load_model(settings)
    decoded = [decode(content, model.preprocessing, 10**8, 16) for content in contents]
    pixels = np.stack([picture.pixels for picture in decoded if isinstance(picture, DecodedPicture)])
    batches = np.split(pixels, range(batch_images, len(pixels), batch_images))
    torch.set_num_threads(arguments.threads)
    with torch.inference_mode():
        reference = model.module(torch.from_numpy(batches[0])).numpy()

    engines: list[Engine] = ["torch"] if device == "cuda" else ["torch", "openvino"]
    on_cpu: list[Precision] = ["bfloat16", "float32"]
    for engine, precision in itertools.product(engines, on_cpu if device == "cpu" else on_cpu[1:]):
        start = time.perf_counter()
        forward = choose_engine(replace(model, precision=precision), engine, arguments.threads, device)
        ready_s = time.perf_counter() - start
        cosine = (forward(batches[0]) * reference).sum(axis=1).min()
        alone = images_per_s(len(pixels), arguments.rounds, partial(run_all, forward, batches))
        print(
            f"{engine:9} {precision:8} forward alone {alone:7.1f} images/s, ready in {ready_s:.1f} s, "
            f"cosine with torch {cosine:.6f}"
        )

    decode_alone = images_per_s(
        n, arguments.rounds, lambda: [decode(content, model.preprocessing, 10**8, 16) for content in contents]
    )
    embedder = Embedder(
        settings, EmbedSettings(engine=engines[-1], batch_images=batch_images), arguments.threads, device
    )
    whole = images_per_s(n, arguments.rounds, lambda: list(embedder.embed(enumerate(contents))))
    bound = 1 / (1 / alone + 1 / decode_alone)
    print(f"decode alone, one thread    {decode_alone:7.1f} images/s")
    print(f"embed kernel                {whole:7.1f} images/s, {whole / alone:.2f} of the forward pass alone")
    if arguments.threads == 1 and device == "cpu":
        print(f"                            {whole / bound:.2f} of decode and forward pass one after the other")


if __name__ == "__main__":
    main()
