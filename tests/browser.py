"""A real browser for tests: Debian's Chromium, installed where it is missing and can be."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache

import pytest
from playwright.sync_api import Browser, sync_playwright

INSTALL = "apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-liberation"


@cache
def chromium_path() -> str | None:
    """Chromium's path; None where it is missing and this is not root on Debian, or the installation fails."""
    if not shutil.which("chromium") and shutil.which("apt-get") and os.geteuid() == 0:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["sh", "-c", INSTALL], env=environment, capture_output=True, timeout=300, check=False)
    return shutil.which("chromium")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium_path()
    if path is None:
        pytest.skip("no chromium; on Debian, `apt-get install chromium` as root")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()
