"""Where a change comes from: who made it, why, from what manifest, with what code."""

import getpass
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lookalike import __version__, files
from lookalike.spark.run import Run


@dataclass(frozen=True)
class Origin:
    """Where a change comes from; see `schemas.AUDIT`."""

    who: str
    why: str | None
    manifest: str | None
    manifest_checksum: str | None
    code_version: str

    @classmethod
    def here(cls, why: str | None = None) -> "Origin":
        """Of what this process does; of no manifest yet."""
        return cls(_user(), why, None, None, code_version())

    def with_manifest(self, run: Run) -> "Origin":
        """With the manifest of `run`, where it has one."""
        if run.settings.manifest is None:
            return self
        return Origin(
            self.who, self.why, files.redact(run.manifest_uri), run.manifest_files.checksum, self.code_version
        )


def _user() -> str:
    try:
        return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


@cache
def code_version() -> str:
    """Version of this library; with the commit, and `dirty` beside changes, where it runs from a checkout."""
    checkout = Path(__file__).parents[3]
    if not (checkout / ".git").exists():
        return __version__
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{git.stdout.strip()}"
