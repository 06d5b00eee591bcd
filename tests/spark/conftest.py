"""What tests of tables share."""

from contextlib import nullcontext

import pytest

from lookalike.spark.tables import Tables


@pytest.fixture(params=["alone", "among others"])
def lock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a local disk; or none, as on HDFS."""
    if request.param == "among others":
        monkeypatch.setattr(Tables, "_only_writer", lambda *_: nullcontext(False))
