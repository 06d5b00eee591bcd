"""The commits of a Delta table, by the names of its log's files."""

import re

from lookalike import files
from lookalike.errors import TableDamaged


def commits(table: str) -> list[int]:
    """Versions in the log of the table at this uri; none where there is no table.

    Delta's own history reads all commits, which takes a Spark job, and its readers begin with whatever commit is there
    first; this lists the log. Raises TableDamaged where a commit is missing.
    """
    log = files.join(table, "_delta_log")
    versions, missing = _listed(log)
    if missing:  # of two commits that came while the folder was listed, the second may be seen and not the first
        versions, missing = _listed(log)
    if missing:
        raise TableDamaged(
            f"{log} lacks {missing[0]:020}.json: restore this file, as without it nobody knows what is in the table"
        )
    return versions


def _listed(log: str) -> tuple[list[int], list[int]]:
    """The commits in the folder, and those that are missing since its last checkpoint."""
    found = files.listed(log, depth=1)
    versions = sorted(int(path[:20]) for path in found if re.fullmatch(r"\d{20}\.json", path))
    checkpoints = [int(path[:20]) for path in found if re.match(r"\d{20}\.checkpoint\.", path)]
    needed = range(max(checkpoints, default=-1) + 1, max(versions, default=-1) + 1)
    return versions, sorted(set(needed) - set(versions))
