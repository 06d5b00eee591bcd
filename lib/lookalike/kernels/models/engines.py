"""What runs a model's forward pass. Torch is the reference, and what a GPU runs; on a CPU, OpenVINO is the fastest
engine that agrees with it (tests/bench/embed_kernel.py measures both).
"""

import copy
import logging
import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
import openvino
import torch
from numpy.typing import NDArray

from lookalike.config import Precision
from lookalike.errors import ModelInvalid
from lookalike.kernels.models.load import Model

Forward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 RGB (n, size_px, size_px, 3) -> float32 (n, dim), L2-normalised."""

Engine = Literal["auto", "torch", "openvino"]

MIN_COSINE: dict[Precision, float] = {"float32": 1 - 1e-3, "bfloat16": 0.97}
"""Least cosine between an engine's embedding and torch's in float32, of pictures of noise."""

log = logging.getLogger(__name__)


def choose_engine(model: Model, engine: Engine, threads: int, device: str) -> Forward:
    """The forward pass of `model` on `device` (`cpu`, `cuda`, `cuda:1`), with `threads` threads on a CPU.

    `auto` is torch on a GPU; on a CPU, OpenVINO, or torch where OpenVINO can't convert the model. Any n will do: no
    engine compiles anew for another batch size. Raises ModelInvalid where `openvino` is given and can't run the model.
    """
    if device != "cpu":
        return _build_torch_cuda(model, device)
    if engine == "torch":
        return _build_torch_cpu(model, threads, model.precision)
    try:
        forward = _build_openvino(model, threads)
        problem = _find_disagreement(model, forward, _build_torch_cpu(model, threads, "float32"))
    except Exception as error:  # OpenVINO's frontend passes on whatever tracing the model raises
        problem = f"{type(error).__name__} in its conversion"
    if not problem:
        return forward
    if engine == "openvino":
        raise ModelInvalid(f"OpenVINO can't run {model.model_id}: {problem}; set embed.engine=torch")
    log.warning("OpenVINO can't run %s (%s); torch runs it, slower", model.model_id, problem)
    return _build_torch_cpu(model, threads, model.precision)


def _find_disagreement(model: Model, forward: Forward, reference: Forward) -> str:
    """How `forward` differs from `reference`, or nothing: a model may convert, and compute something else."""
    side = model.preprocessing.size_px
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    cosine = float(np.sum(forward(images) * reference(images), axis=1).min())
    return "" if cosine >= MIN_COSINE[model.precision] else f"cosine {cosine:.4f} with torch"


def _build_torch_cpu(model: Model, threads: int, precision: Precision) -> Forward:
    torch.set_num_threads(threads)
    module = model.module
    if precision == "bfloat16":
        module = copy.deepcopy(module)
        for part in module.parts:
            part.network.bfloat16()  # pixels are normalised, features pooled and normalised in float32

    def forward(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            embeddings: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
        return embeddings

    return forward


def _build_torch_cuda(model: Model, device: str) -> Forward:
    module = copy.deepcopy(model.module)
    for part in module.parts:
        part.network.half()  # pixels are normalised, features pooled and normalised in float32
    module = module.to(device).to(memory_format=torch.channels_last)

    def forward(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            batch = torch.from_numpy(images).pin_memory().to(device, non_blocking=True)
            embeddings: NDArray[np.float32] = module(batch).cpu().numpy()
        return embeddings

    return forward


def _build_openvino(model: Model, threads: int) -> Forward:
    side = model.preprocessing.size_px
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO traces as torch no longer recommends
        # Several images, so that no batch size of 1 is taken for a constant. The check is ours, see _find_disagreement.
        example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
        traced = torch.jit.trace(model.module, example, check_trace=False)  # type: ignore[no-untyped-call]
        network = openvino.convert_model(traced, example_input=example)
    network.reshape([-1, side, side, 3])
    compiled = openvino.Core().compile_model(
        network,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # It picks bfloat16 by itself where the CPU has it.
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[model.precision],
            # Several workers share a machine, and each would pin its threads to the same first cores.
            "ENABLE_CPU_PINNING": False,
        },
    )

    def forward(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array(compiled(images)[0])  # a copy: OpenVINO reuses its output's memory

    return forward
