"""Two networks that differ in their later layers alone: what comes before is computed once, for both."""

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from lookalike.kernels.models.networks import run_watched


def share_layers(original: nn.Module, changed: nn.Module, names: Collection[str], size_px: int) -> None:
    """Let `changed` take from the last forward pass of `original` what both compute alike.

    `names` are the tensors in which they differ. In `changed`, each module that ran before the first that differs is
    replaced by one that gives what its twin in `original` gave; modules with hooks stay, as somebody watches these.
    `size_px` is the side of a picture for a trial pass.
    """
    twins = dict(original.named_modules())
    others = {name for name, module in changed.named_modules() if type(module) is not type(twins.get(name))}
    watched = {name for name, module in changed.named_modules() if _has_hooks(module)}
    before = _find_modules_before(changed, {name.rpartition(".")[0] for name in names} | others, size_px)
    unwatched = {name for name in before if not any(_is_within(other, {name}) or other == name for other in watched)}
    for name in _pick_largest(unwatched):
        replay = _Replay()
        original.get_submodule(name).register_forward_hook(replay.keep)
        parent, _, child = name.rpartition(".")
        changed.get_submodule(parent).register_module(child, replay)


class _Replay(nn.Module):
    """Gives what another module gave last, whatever comes in. A deep copy of both stays linked, as hooks are copied."""

    def __init__(self) -> None:
        super().__init__()
        self.output: Any = None

    def keep(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.output = output.clone()  # networks such as ResNet go on to change what a layer gave in its place

    def forward(self, *_inputs: Any) -> Tensor:
        output, self.output = self.output, None
        return output  # type: ignore[no-any-return]


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _find_modules_before(network: nn.Module, different: Collection[str], size_px: int) -> set[str]:
    """The modules that end before the first of those named `different` begins, and that run once."""
    calls: list[tuple[str, bool]] = []  # a module's name, and whether it ended with a tensor
    handles = []
    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(lambda _m, _i, name=name: calls.append((name, False))))
        handles.append(
            module.register_forward_hook(
                lambda _m, _i, output, name=name: calls.append((name, isinstance(output, Tensor)))
            )
        )
    run_watched(network, size_px, handles)
    first = next((place for place, (name, _) in enumerate(calls) if name in different), len(calls))
    ended = {name for name, is_tensor in calls[:first] if is_tensor}
    # Its begin and its end; the network itself has no name.
    return {name for name in ended if name and sum(called == name for called, _ in calls) == 2}


def _pick_largest(names: Collection[str]) -> list[str]:
    return [name for name in sorted(names) if not _is_within(name, names)]


def _is_within(name: str, others: Collection[str]) -> bool:
    parents = name.split(".")
    return any(".".join(parents[:depth]) in others for depth in range(1, len(parents)))
