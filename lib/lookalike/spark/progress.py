"""A progress bar per stage, on stderr: images done, images per second, time left.

Tasks count images into a Spark accumulator; the driver sees a task's count when the task ends.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pyspark import SparkContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Count = Callable[[int], None]
"""Tells a progress bar how many more images are done."""

_POLL_S = 0.5


class _Rate(ProgressColumn):
    """Mean rate so far: tasks report seldom, so the latest one would jump."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time or task.elapsed
        rate = f"{task.completed / elapsed:,.0f}" if elapsed else "-"
        return Text(f"{rate} images/s", style="progress.data.speed")


@contextmanager
def progress_bar(console: Console, context: SparkContext, stage: str, total: int) -> Iterator[Count]:
    """Show a bar for `total` images; gives the function with which tasks count the images that they have done."""
    with progress_bars(console, context, {stage: total}) as (count,):
        yield count


@contextmanager
def progress_bars(console: Console, context: SparkContext, totals: Mapping[str, int]) -> Iterator[list[Count]]:
    """`progress_bar`, of several bars by name, one below the other."""
    done = [context.accumulator(0) for _ in totals]
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    ended = threading.Event()
    with Progress(*columns, console=console) as bars:
        shown = [bars.add_task(name, total=total) for name, total in totals.items()]

        def update() -> None:
            for bar, counted, total in zip(shown, done, totals.values(), strict=True):
                bars.update(bar, completed=min(counted.value, total))

        def poll() -> None:
            while not ended.wait(_POLL_S):
                update()

        poller = threading.Thread(target=poll, daemon=True)
        poller.start()
        try:
            yield [counted.add for counted in done]
            for bar, total in zip(shown, totals.values(), strict=True):
                bars.update(bar, completed=total)
        finally:
            ended.set()
            poller.join()
