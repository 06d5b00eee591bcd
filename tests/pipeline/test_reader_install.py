"""The reader as a service installs it: on the oldest Python with the lowest versions that it admits, and the newest."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import CHECKOUT
from tests.unit.test_reader import DIM, Images, build, build_pack, fit_predictor, publish

PROGRAM = """
import sys
import numpy as np
from lookalike import reader

root, cache = sys.argv[1:]
catalog = reader.open(root, cache=cache)
query = np.arange(1.0, catalog.dim + 1)
print(*(match.product_id for match in catalog.search(query, 5)))
print(*(match.product_id for match in catalog.similar("b001", 5)))
print(*(match.product_id for match in reader.open(root, "shoes", cache=cache).search(query, 5)))
print(catalog.predict_category(query, 1)[0].category in ("bags", "hats", "shoes"), catalog.refresh())
"""

FACTORIES = ["IDMap,Flat", "IVF8,SQ8", "IVF8,PQ8x4fsr"]  # those that `plan` chooses from, written by the locked FAISS


def find_pythons() -> list[str]:
    """Those of the versions that the package admits which are on this machine, oldest first."""
    names = [f"python3.{minor}" for minor in range(10, 14)]
    return [name for name in names if shutil.which(name) and runs(name)]


def runs(python: str) -> bool:
    return subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode == 0


def read_lowest() -> list[str]:
    """The reader's requirements, each at its lower bound."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement) for requirement in project["dependencies"]]
    assert all(bounds), "each has a lower bound, and no other"
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


@pytest.mark.parametrize("which", ["lowest", "newest"])
def test_a_service_installs_the_reader_and_reads(tmp_path: Path, which: str) -> None:
    source = tmp_path / "source"
    shutil.copytree(CHECKOUT / "lib", source / "lib", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (source / "docs").mkdir()
    for name in ("pyproject.toml", "README.md", "docs/LICENSE"):
        shutil.copy2(CHECKOUT / name, source / name)
    python = find_pythons()[0 if which == "lowest" else -1]
    service = tmp_path / "service"
    subprocess.run([python, "-m", "venv", service], check=True)
    pinned = read_lowest() if which == "lowest" else []
    pip = [str(service / "bin" / "python"), "-m", "pip", "install", "--quiet", "--prefer-binary"]
    subprocess.run([*pip, str(source), *pinned], check=True)

    bags, hats, shoes = Images(2, prefix="b"), Images(3, prefix="h"), Images(1, products=200)
    build_pack(tmp_path, "v1", {"bags": bags, "hats": hats})
    query = np.arange(1.0, DIM + 1)
    query /= np.linalg.norm(query)
    fit_predictor(tmp_path, categories=("bags", "hats", "shoes"))
    for factory in FACTORIES:
        build(tmp_path, "shoes", factory, shoes, factory)
        publish(tmp_path, {"shoes": factory, "bags": "v1", "hats": "v1"})
        ran = subprocess.run(
            [service / "bin" / "python", "-c", PROGRAM, str(tmp_path), str(tmp_path / "cache")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        everything = sorted(
            (match for part in (bags, hats, shoes) for match in part.nearest(query, 5)), key=lambda match: -match[1]
        )
        lines = ran.stdout.splitlines()
        assert lines[0].split() == [name for name, _ in everything[:5]]
        assert len(lines[1].split()) == 5
        assert lines[2].split() == [name for name, _ in shoes.nearest(query, 5)]
        assert lines[3] == "True False"
