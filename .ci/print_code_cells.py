"""Print the code of a notebook, so that mypy can check it."""

import json
import sys
from pathlib import Path

cells = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cells"]
print("\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
