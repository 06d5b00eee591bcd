"""Fixtures that all tests share."""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.web_server import Server, serving

CHECKOUT = Path(__file__).resolve().parents[1]
SHARED_DATA = CHECKOUT.parent / "shared" / "data"


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count every test outside of tests/unit as slow that does not say that it is fast."""
    for item in items:
        if CHECKOUT / "tests" / "unit" not in item.path.parents and not item.get_closest_marker("fast"):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real product pictures beside the checkout; tests that need them are skipped where they are missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return SHARED_DATA


# A query over a handful of rows is done before code of its own would be compiled.
FOR_FEW_ROWS = (
    *("--conf", "spark.sql.codegen.wholeStage=false"),
    *("--conf", "spark.sql.codegen.factoryMode=NO_CODEGEN"),
    *("--conf", "spark.sql.adaptive.enabled=false"),  # with it, each step of a query is a job, and planned anew
    *("--conf", "spark.buffer.pageSize=1m"),  # each sort and join takes one at least, of 64 MB by Spark's own choice
    *("--conf", "spark.driver.extraJavaOptions=-XX:+UseSerialGC"),
    *("--conf", "spark.executor.extraJavaOptions=-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"),
)
# In a process that ends within a minute. In the session that all tests share, code compiled well saves a quarter.
FOR_A_SHORT_JOB = (*FOR_FEW_ROWS, "--conf", "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")


BY_SPARK_SUBMIT_SH = shlex.split(os.environ["PYSPARK_SUBMIT_ARGS"])[:-1]  # without the program


def spark_environment(folder: Path, master: str) -> dict[str, str]:
    """Variables for a driver with its scratch in `folder`, set up as spark-submit.sh sets it up."""
    settings = {
        "spark.local.dir": folder / "local",
        "spark.sql.warehouse.dir": folder / "warehouse",
        "spark.sql.shuffle.partitions": 2,
    }
    options = [option for name, value in settings.items() for option in ("--conf", f"{name}={value}")]
    return {
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": shlex.join(
            [*BY_SPARK_SUBMIT_SH, "--master", master, "--driver-memory", "2g", *options, *FOR_FEW_ROWS, "pyspark-shell"]
        ),
        "SPARK_LOCAL_IP": os.environ.get("SPARK_LOCAL_IP", "127.0.0.1"),
    }


@pytest.fixture(scope="session")
def spark_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """One local Spark for all tests of this process."""
    from lookalike.spark.session import session

    os.environ.update(spark_environment(tmp_path_factory.mktemp("spark"), "local[2]"))
    spark = session("tests")
    yield spark
    spark.stop()


@pytest.fixture
def spark(spark_session: object) -> Iterator[object]:
    """The shared session, with nothing cached by the test before."""
    yield spark_session
    spark_session.catalog.clearCache()  # type: ignore[attr-defined]


@pytest.fixture
def server() -> Iterator[Server]:
    """A web server on loopback."""
    yield from serving("127.0.0.1")
