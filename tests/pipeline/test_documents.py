"""Every block on every page of the documentation runs as it stands, and prints what the page says."""

import ast
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.catalogs import Ended
from tests.conftest import CHECKOUT
from tests.pages import PAGES, Block, Checkout, blocks_of, difference

from lookalike import config
from lookalike.sample import make_sample

NOT_HERE = {
    ("README.md", "./spark-submit.sh test --fast"): "this test would run itself",
    ("CONTRIBUTING.md", "./spark-submit.sh test --fast"): "this test would run itself",
    ("architecture.md", "./spark-submit.sh test tests/unit/test_layout.py"): "runs with all tests",
    ("CONTRIBUTING.md", "PYTHONPATH=lib .venv/bin/python -m lookalike.settings_page > docs/settings.md"): (
        "writes into the checkout; the pages' own tests compare them with what is generated"
    ),
    ("cluster.md", "cp conf/cluster.toml my-cluster.toml"): "packs 3 GB, and a cluster is needed",
    ("cluster.md", 'export SPARK_WORKER_OPTS="-Dspark.worker.resource.gpu.amount=1'): "a cluster is needed",
    ("cluster.md", "export HADOOP_CONF_DIR=/etc/hadoop/conf"): "a cluster is needed",
    (
        "cluster.md",
        "./spark-submit.sh pipeline --config my-cluster.toml --master k8s://https://HOST:6443 --deploy-mode cluster \\",
    ): "a cluster is needed",
    (
        "cluster.md",
        "export AWS_ACCESS_KEY_ID=KEY AWS_SECRET_ACCESS_KEY=SECRET AWS_ENDPOINT_URL=https://s3.shop.example",
    ): "a store with these keys is needed",
    ("models.md", "./spark-submit.sh import_benchmark --layout deepfashion-inshop --folder In-shop/ --out bench"): (
        "the set of pictures is not here"
    ),
    ("operations.md", "node_exporter --collector.textfile.directory=/var/lib/node_exporter"): "no node exporter here",
    (
        "operations.md",
        "./spark-submit.sh pipeline --config shop.toml --set metrics_file=/var/lib/node_exporter/shop.prom",
    ): "no node exporter here",
    ("scale.md", "PYTHONPATH=lib:. .venv/bin/python tests/bench/operation.py"): "takes half an hour",
}
"""Blocks that do not run here, by page and first line, and why."""

RUN = ("bash", "python")

# What of the sample catalog is enough for all pages: enough products to tell categories apart, two images of each.
CATEGORIES = (
    "accessories/hats",
    "accessories/watches",
    "home/mugs",
    "men/shirts",
    "men/trousers",
    "women/dresses",
    "women/tops",
)
VIEWS = ("_main", "_angle")
PRODUCTS = 80  # five in each category
NAMES = [page.name for page in PAGES]


@pytest.fixture(scope="module")
def first_run(
    spark_session: object,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Ended]:
    """A folder in which the README's first command ran, on a part of the sample; and how it ended."""
    folder = tmp_path_factory.mktemp("checkout")
    make_small_sample(folder / "catalog" / "sample")
    return folder, Checkout(folder).run(blocks_of(CHECKOUT / "README.md")[0])


def make_small_sample(folder: Path) -> None:
    path = make_sample(folder, PRODUCTS)
    rows = pq.read_table(path)
    is_good = pc.is_in(rows["category"], pa.array(CATEGORIES))
    is_chosen = pc.and_(is_good, pc.match_substring_regex(rows["image_id"], f"({'|'.join(VIEWS)})$"))
    is_bad = pc.starts_with(rows["image_id"], "damaged")
    pq.write_table(rows.filter(pc.or_(is_chosen, is_bad)), path)


@pytest.mark.parametrize("name", [page.name for page in PAGES if any(b.language in RUN for b in blocks_of(page))])
def test_blocks_run_and_print_what_the_page_says(name: str, first_run: tuple[Path, Ended], tmp_path: Path) -> None:
    """In their order, in a folder of the page's own that has what the README's first command made."""
    shutil.copytree(first_run[0] / "catalog", tmp_path / "catalog")
    checkout = Checkout(tmp_path)
    for block in blocks_of(path_of(name)):
        if block.language not in RUN or (name, block.first_line) in NOT_HERE:
            continue
        is_first = (name, block) == ("README.md", blocks_of(CHECKOUT / "README.md")[0])
        ended = first_run[1] if is_first else checkout.run(block)
        assert ended.code == 0, f"{block.text}\n{ended.out}\n{ended.err}"
        if block.output is not None:
            missing = difference(block.output, ended.out)
            assert missing is None, f"{block.text}\nmissing: {missing}\nprinted:\n{ended.out}"


@pytest.mark.parametrize("name", NAMES)
def test_blocks_parse(name: str, tmp_path: Path) -> None:
    for block in blocks_of(path_of(name)):
        check_syntax(block, tmp_path)


def check_syntax(block: Block, folder: Path) -> None:
    match block.language:
        case "bash":
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        case "python":
            ast.parse(block.text)
        case "toml":
            tomllib.loads(block.text)
            (folder / "settings.toml").write_text(block.text, encoding="utf-8")
            config.load(folder / "settings.toml")
        case "json":
            for line in block.text.splitlines():
                json.loads(line)
        case other:
            raise AssertionError(f"a block of {other!r}: name its language, or `text` for output")


def test_what_does_not_run_here_is_on_a_page() -> None:
    blocks = {(page.name, block.first_line) for page in PAGES for block in blocks_of(page)}
    assert NOT_HERE.keys() <= blocks


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = path_of(name)
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        if file.startswith("https:"):
            continue
        there = page.parent / file if file else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as web pages of repositories make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def path_of(name: str) -> Path:
    return next(page for page in PAGES if page.name == name)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("rows 64", "rows 1,234"),
        ("…\nb", "a\nb"),
        ("a\n…", "a\nb\nc"),
        ("dresses  12  …", "│ dresses │ 3 │ IVF │"),
        ("report: …/report.html", "report: file:///x/report.html"),
        ("version 5f3a01b2c3d4e5f6 is live", "version 00ff00ff00ff00ff is live"),
        ("took 9.5 s", "took 2 min 05 s"),
    ],
)
def test_outputs_that_are_alike(shown: str, printed: str) -> None:
    assert difference(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("a", "b"), ("a", "a\nb"), ("a\nc", "a\nb\nc"), ("a\n…\nc", "a\nb"), ("rows 64", "rows none"), ("b\na", "a\nb")],
)
def test_outputs_that_differ(shown: str, printed: str) -> None:
    assert difference(shown, printed) is not None
