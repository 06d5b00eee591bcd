"""The page in a real browser, at the widths of a desk and of a phone."""

import socket
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser
from tests.browser import browser  # noqa: F401
from tests.report_pages import EMPTY, MEASURED, ORDINARY, RETRAINED, STRAINED, picture_count

from lookalike.report.page import ReportPage, render

PAGES = {"ordinary": ORDINARY, "measured": MEASURED, "retrained": RETRAINED, "empty": EMPTY, "strained": STRAINED}

OUTSIDE = """() => {
  // An element wider than the page is allowed only inside a box that scrolls or hides its own overflow.
  const own = e => { for (e = e.parentElement; e && e !== document.body; e = e.parentElement)
    if (getComputedStyle(e).overflowX !== 'visible') return true; return false; };
  return [...document.body.querySelectorAll('*')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 && !own(e))
    .map(e => `${e.tagName}.${e.className}`);
}"""

FAINT = """() => {
  const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = e => { for (; e; e = e.parentElement) {
    const color = numbers(getComputedStyle(e).backgroundColor);
    if (color[3] !== 0) return color; }
    return [255, 255, 255]; };
  const hasText = e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim());
  return [...document.body.querySelectorAll('*')].filter(hasText).map(e => {
    const [a, b] = [luminance(numbers(getComputedStyle(e).color)), luminance(ground(e))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), `${e.tagName}.${e.className} ${e.textContent.trim()}`];
  }).filter(([contrast]) => contrast < 4.5);
}"""


Scheme = Literal["light", "dark"]


def written(page: ReportPage, folder: Path) -> str:
    path = folder / "report.html"
    path.write_text(render(page), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_page_fits_loads_and_reads(browser: Browser, tmp_path: Path, name: str, scheme: Scheme, width: int) -> None:  # noqa: F811
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        tab = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        uri = written(PAGES[name], tmp_path)
        tab.goto(uri)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate(OUTSIDE) == []
        widths = tab.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(widths) == picture_count(PAGES[name])
        assert all(widths)
        assert tab.evaluate(FAINT) == []
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [uri]


def test_nothing_outside_the_page_is_ever_asked_for(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as server:
        outside = f"http://127.0.0.1:{server.getsockname()[1]}/p.jpg"
        title = f"<img src={outside}><script src={outside}></script>"
        query = replace(ORDINARY.queries[0], picture=outside, title=title)
        with browser.new_context() as context:
            tab = context.new_page()
            tab.goto(written(replace(ORDINARY, queries=(query,)), tmp_path))
            assert tab.locator("script").count() == 0
            assert tab.locator("article h3").inner_text() == title
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_similar_items_scroll_in_their_own_row_on_a_phone(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        tab = context.new_page()
        tab.goto(written(STRAINED, tmp_path))
        row = tab.locator(".matches").first
        last = row.locator("li").last
        hidden = last.bounding_box()
        assert hidden
        assert hidden["x"] > 390
        row.evaluate("row => row.scrollLeft = row.scrollWidth")
        shown = last.bounding_box()
        assert shown
        assert shown["x"] + shown["width"] <= 390


def test_paper_shows_every_similar_item_and_category(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    with browser.new_context(viewport={"width": 703, "height": 1050}) as context:
        tab = context.new_page()
        tab.emulate_media(media="print")
        tab.goto(written(replace(STRAINED, categories=ORDINARY.categories * 200, stages=ORDINARY.stages), tmp_path))
        hidden = "box => box.scrollHeight > box.clientHeight + 1 || box.scrollWidth > box.clientWidth + 1"
        boxes = tab.locator(".matches, .scroll").all()
        assert len(boxes) >= 4
        assert not any(box.evaluate(hidden) for box in boxes)
