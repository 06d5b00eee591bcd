"""What part of a catalog a run is about."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lookalike.errors import ConfigInvalid

Retry = Literal["unreadable", "all"]


@dataclass(frozen=True)
class Selection:
    """`categories`: paths, each with all below it; none means all.

    `full`: build anew what is live, too. `retry`: only images that were rejected, as their uri could not be read
    (`unreadable`) or for any cause (`all`). `complete`: the manifest has every image of the categories, and what it
    leaves out is deleted.
    """

    categories: tuple[str, ...] = ()
    full: bool = False
    retry: Retry | None = None
    complete: bool = False

    @classmethod
    def of(
        cls, categories: Sequence[str], full: bool = False, retry: Retry | None = None, complete: bool = False
    ) -> "Selection":
        """Raises ConfigInvalid for a category that can't be one, and for `complete` with `retry`."""
        if complete and retry:
            raise ConfigInvalid("--complete and --retry-rejected: give one, as a retry looks at rejected images only")
        paths = tuple(dict.fromkeys(category.removesuffix("/") for category in categories))
        wrong = [path for path in paths if not path or path != path.strip() or path.startswith("/")]
        if wrong:
            named = ", ".join(repr(path) for path in wrong)
            raise ConfigInvalid(f"--category {named}: write it as the manifest does, such as --category women/dresses")
        return cls(paths, full, retry, complete)


EVERYTHING = Selection()
