"""Python processes that find what this one imports, and nothing in the folder in which they are started."""

import os
import sys


def program_of(module: str, function: str) -> str:
    """What `python -c` is given to call `function` of `module`."""
    return f"import sys; sys.path[:] = filter(None, sys.path); from {module} import {function}; {function}()"


def environment() -> dict[str, str]:
    """This process's, with all folders that it imports from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
