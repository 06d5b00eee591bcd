"""Manners towards a host: what all tasks of an executor do together, seen by a server on loopback."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import CHECKOUT
from tests.web_server import BODY, Server, serving

from lookalike import fetch, reasons, throttle
from lookalike.config import IngestSettings
from lookalike.unreadable import reason_of
from lookalike.web import read_retry_after

HERE = ("127.0.0.1",)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scratch folder of an executor, whose tasks are this process and those that it starts."""
    monkeypatch.setattr(fetch, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(fetch, "_LONGEST_WAIT_S", 0.01)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path},/none")
    for cached in (throttle._folder, throttle.throttle_of):
        cached.cache_clear()
    yield
    for cached in (throttle._folder, throttle.throttle_of):
        cached.cache_clear()


@pytest.fixture
def watched(server: Server) -> Server:
    """A server that keeps when each request came, and how many there were at once."""
    server.answers = defaultdict(lambda: lambda request: request.answer())
    return server


def outcome(uri: str, settings: IngestSettings) -> str:
    try:
        return "read" if fetch.read_image(uri, settings) == BODY else "other bytes"
    except Exception as error:  # as a task has it
        return reason_of(error)


def read_all(server: Server, images: int, settings: IngestSettings, threads: int = 16) -> list[str]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda number: outcome(server.uri(f"/{number}"), settings), range(images)))


def start_task(server: Server, images: int, **settings: Any) -> "subprocess.Popen[str]":
    """Another task of the executor, which reads images in 16 threads and prints what became of them."""
    code = f"""
from concurrent.futures import ThreadPoolExecutor
from tests.unit.test_throttle import outcome
from lookalike.config import IngestSettings
settings = IngestSettings(hosts=("127.0.0.1",), **{settings!r})
with ThreadPoolExecutor(16) as pool:
    print(*pool.map(lambda n: outcome(f"{server.uri("/task")}{{n}}", settings), range({images})), sep="\\n")
"""
    path = os.pathsep.join([str(CHECKOUT / "lib"), str(CHECKOUT)])
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )


class Crowd:
    """Answers a request after a while; knows how many there were at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.most, self.starts = seconds, 0, 0, list[float]()
        self.lock = threading.Lock()

    def __call__(self, request: Any) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.starts.append(time.monotonic())
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        request.answer()


def test_the_tasks_of_an_executor_share_the_limit_of_requests_at_once(server: Server) -> None:
    crowd = Crowd(0.05)
    server.answers = defaultdict(lambda: crowd)
    tasks = [start_task(server, 30, host_requests=5) for _ in range(2)]
    assert read_all(server, 30, IngestSettings(hosts=HERE, host_requests=5)) == ["read"] * 30
    for task in tasks:
        assert task.communicate()[0].split() == ["read"] * 30
    assert crowd.most == 5
    # Without the limit they do come at once, so that the figure above says something.
    crowd.most = 0
    read_all(server, 30, IngestSettings(hosts=HERE))
    assert crowd.most > 5


def test_the_tasks_of_an_executor_share_the_limit_of_requests_per_second(server: Server) -> None:
    crowd = Crowd(0.0)
    server.answers = defaultdict(lambda: crowd)
    task = start_task(server, 30, host_requests_per_s=20.0)
    assert read_all(server, 30, IngestSettings(hosts=HERE, host_requests_per_s=20.0)) == ["read"] * 30
    assert task.communicate()[0].split() == ["read"] * 30
    starts = sorted(crowd.starts)
    for first, later in zip(starts, starts[20:], strict=False):
        assert later - first > 0.8  # 21 requests in a second, but for a tenth of one and the server's own delay


def test_to_wait_for_others_takes_no_time_from_an_image(server: Server) -> None:
    server.answers = defaultdict(lambda: Crowd(0.1))
    settings = IngestSettings(hosts=HERE, host_requests=1, image_timeout_s=0.5)
    assert read_all(server, 12, settings) == ["read"] * 12  # the last one waits for more than a second


def test_a_task_that_is_killed_gives_its_places_back(server: Server) -> None:
    done, asked = threading.Event(), threading.Event()

    def hang(_: Any) -> None:
        asked.set()
        done.wait(30)

    server.answers = defaultdict(lambda: hang)
    task = start_task(server, 1, host_requests=1)
    assert asked.wait(30)
    try:
        server.answers = defaultdict(lambda: lambda request: request.answer())
        settings = IngestSettings(hosts=HERE, host_requests=1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(outcome, server.uri("/x"), settings)
            time.sleep(0.3)
            assert not waiting.done()
            os.kill(task.pid, signal.SIGKILL)
            assert waiting.result(5) == "read"
    finally:
        done.set()
        task.communicate()


def test_limits_are_of_one_host(server: Server) -> None:
    done = threading.Event()
    server.answers = defaultdict(lambda: lambda request: (done.wait(10), request.answer()))
    settings = IngestSettings(hosts=("127.*",), host_requests=1)
    for other in serving("127.0.0.2"):
        other.answers = defaultdict(lambda: lambda request: request.answer())
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(outcome, server.uri("/x"), settings)
            assert read_all(other, 5, settings) == ["read"] * 5
            done.set()
            assert held.result() == "read"


def seconds_later(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2.0),
        (" 1.5 ", 1.5),
        ("Fri, 27 Nov 2026 10:00:30 GMT", 30.0),
        ("Friday, 27-Nov-26 10:00:30 GMT", 30.0),
        ("Fri Nov 27 10:00:30 2026", 30.0),
        ("Fri, 27 Nov 2026 09:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_server_s_clock(text: str, seconds: float | None) -> None:
    assert read_retry_after(text, "Fri, 27 Nov 2026 10:00:00 GMT") == seconds


def test_a_date_is_by_our_clock_where_the_server_tells_none() -> None:
    assert read_retry_after(seconds_later(60), "") == pytest.approx(60, abs=2)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry_after", [lambda: "1", lambda: seconds_later(2)])
def test_retry_after_is_kept_by_all_requests_to_the_host(
    server: Server, status: int, retry_after: Callable[[], str]
) -> None:
    starts: list[float] = []

    def answer(request: Any) -> None:
        starts.append(time.monotonic())
        if len(starts) == 1:
            request.answer(status, b"", **{"Retry-After": retry_after()})
        else:
            request.answer()

    server.answers = defaultdict(lambda: answer)
    settings = IngestSettings(hosts=HERE)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(outcome, server.uri("/first"), settings)
        while not starts:
            time.sleep(0.01)
        time.sleep(0.05)
        task = start_task(server, 3)
        assert read_all(server, 3, settings) == ["read"] * 3
        assert first.result() == "read"
    assert task.communicate()[0].split() == ["read"] * 3
    assert starts[1] - starts[0] > 0.9


def test_a_host_that_asks_to_wait_for_longer_than_an_image_has_time_costs_nobody_a_wait(server: Server) -> None:
    server.answers = defaultdict(lambda: lambda request: request.answer(429, b"", **{"Retry-After": "3600"}))
    settings = IngestSettings(hosts=HERE, image_timeout_s=30)
    began = time.monotonic()
    assert set(read_all(server, 200, settings)) == {reasons.SERVER_ERROR.text}
    assert time.monotonic() - began < 5
    assert len(server.asked) <= 16


def test_a_busy_host_is_asked_as_often_as_it_can_answer(server: Server) -> None:
    """It answers 15 requests a second, and 429 to any more, without saying when to come again."""
    answered: list[float] = []
    busy = 0
    lock = threading.Lock()

    def answer(request: Any) -> None:
        nonlocal busy
        with lock:
            now = time.monotonic()
            good = sum(now - start < 1 for start in answered) < 15
            if good:
                answered.append(now)
            else:
                busy += 1
        request.answer(200 if good else 429)

    server.answers = defaultdict(lambda: answer)
    outcomes = read_all(server, 50, IngestSettings(hosts=HERE))
    assert outcomes.count("read") >= 48
    assert 0 < busy < 40  # of the 16 threads that first came at once each one was told so


def test_a_host_that_is_down_costs_one_wait_and_is_tried_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_DOWN_S", 1.5)
    settings = IngestSettings(hosts=HERE, connect_timeout_s=1.0)
    port = server.server_port
    server.shutdown()
    server.server_close()
    began = time.monotonic()
    assert set(read_all(server, 500, settings)) == {reasons.NO_CONNECTION.text}
    assert time.monotonic() - began < 5
    for again in serving("127.0.0.1", port):
        again.answers = defaultdict(lambda: lambda request: request.answer())
        time.sleep(1.6)
        assert read_all(again, 20, settings) == ["read"] * 20


@pytest.mark.parametrize("status", [503, 522])
def test_a_host_behind_a_gateway_is_down_like_any_other(server: Server, status: int) -> None:
    server.answers = defaultdict(lambda: lambda request: request.answer(status, b""))
    began = time.monotonic()
    settings = IngestSettings(hosts=HERE, connect_timeout_s=1.0)
    assert set(read_all(server, 500, settings)) == {reasons.SERVER_ERROR.text}
    assert time.monotonic() - began < 5
    asked = len(server.asked)
    assert asked < 60
    task = start_task(server, 50, connect_timeout_s=1.0)
    assert set(task.communicate()[0].splitlines()) == {reasons.SERVER_ERROR.text}
    assert len(server.asked) == asked


def test_a_host_that_never_answers_costs_one_wait(server: Server) -> None:
    done = threading.Event()
    server.answers = defaultdict(lambda: lambda _: done.wait(10))
    began = time.monotonic()
    settings = IngestSettings(hosts=HERE, connect_timeout_s=1.0, read_timeout_s=1.0)
    try:
        assert set(read_all(server, 200, settings)) == {reasons.TIMED_OUT.text}
        assert time.monotonic() - began < 8
    finally:
        done.set()


def test_one_bad_image_slows_no_host_down(server: Server) -> None:
    done = threading.Event()
    server.answers = defaultdict(lambda: lambda request: request.answer())
    server.answers |= {
        "/0": lambda _: done.wait(10),
        "/1": lambda request: request.answer(500),
        "/2": lambda request: request.answer(504),
        "/3": lambda request: request.connection.close(),
        "/4": lambda request: request.answer(404),
    }
    began = time.monotonic()
    try:
        outcomes = read_all(server, 400, IngestSettings(hosts=HERE, read_timeout_s=0.5))
        assert outcomes[5:] == ["read"] * 395
        assert "read" not in outcomes[:5]
        assert time.monotonic() - began < 8
    finally:
        done.set()


def test_a_server_that_restarts_loses_few_images(server: Server) -> None:
    """It is gone for two seconds; meanwhile one image at a time tries, and the others wait."""
    port = server.server_port
    settings = IngestSettings(hosts=HERE)
    server.shutdown()
    server.server_close()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_all, server, 200, settings)
        time.sleep(2)
        for again in serving("127.0.0.1", port):
            again.answers = defaultdict(lambda: lambda request: request.answer())
            assert reading.result().count("read") >= 190


def test_without_a_scratch_folder_a_process_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "/none/such"):
        monkeypatch.setenv("SPARK_LOCAL_DIRS", value)
        throttle._folder.cache_clear()
        folder = throttle._folder()
        assert folder.is_dir() and not folder.is_relative_to("/none")
        assert folder.stat().st_mode & 0o77 == 0
