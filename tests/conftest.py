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


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real product pictures beside the checkout; tests that need them are skipped where they are missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def spark_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """One local Spark for all tests of this process, set up as spark-submit.sh sets it up."""
    os.environ.setdefault("SPARK_CONF_DIR", str(CHECKOUT / "conf"))
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from lookalike.spark.session import session

    scratch = tmp_path_factory.mktemp("spark")
    settings = {
        "spark.jars.ivy": CHECKOUT / ".cache" / "ivy",
        "spark.local.dir": scratch / "local",
        "spark.sql.warehouse.dir": scratch / "warehouse",
    }
    options = [option for name, value in settings.items() for option in ("--conf", f"{name}={value}")]
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join(["--master", "local[2]", *options, "pyspark-shell"])
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
