"""The documentation's pages: their blocks, a place to run them in, and what counts as the same output."""

import contextlib
import importlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from tests.catalogs import Ended
from tests.conftest import CHECKOUT

PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]

OUTPUT = "text"
CUT = "…"  # in an output: anything may stand here; alone on a line: any lines

_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. `output` is what the page shows below it."""

    language: str
    text: str
    output: str | None = None

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in their order. A block of text that follows another one directly is that one's output."""
    text = page.read_text(encoding="utf-8")
    blocks: list[Block] = []
    end = 0
    for match in _BLOCK.finditer(text):
        language, content = match["language"], match["text"]
        if language == OUTPUT and blocks and not text[end : match.start()].strip():
            blocks[-1] = Block(blocks[-1].language, blocks[-1].text, content)
        elif language != OUTPUT:  # else a drawing
            blocks.append(Block(language, content))
        end = match.end()
    return blocks


class Checkout:
    """A folder in which a page's commands run as in a checkout.

    Its spark-submit.sh hands each job to this process, where Spark is up already: a JVM for each job would take
    minutes. Everything else is bash's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (".venv", "lib", "conf"):
            (folder / name).symlink_to(CHECKOUT / name)
        self._script = folder / "spark-submit.sh"

    def run(self, block: Block) -> Ended:
        """Run a block, of Python with names of its own."""
        with contextlib.chdir(self.folder):
            return _run_python(block.text) if block.language == "python" else self._run_bash(block.text)

    def _run_bash(self, text: str) -> Ended:
        with Listener(family="AF_UNIX") as jobs, ThreadPoolExecutor(1) as pool:
            self._script.write_text(_HAND_OVER.format(python=sys.executable, address=str(jobs.address)))
            self._script.chmod(0o755)
            ended = pool.submit(self._bash, text, str(jobs.address))
            _serve(jobs)  # here, as only the main thread may handle signals
            return ended.result()

    def _bash(self, text: str, address: str) -> Ended:
        try:
            command = ["bash", "-euo", "pipefail", "-c", text]
            done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, timeout=600)
            return Ended(done.returncode, done.stdout, done.stderr)
        finally:
            with Client(address) as jobs:
                jobs.send(None)


_HAND_OVER = """#!{python} -I
import sys
from multiprocessing.connection import Client
with Client({address!r}) as jobs:
    jobs.send(sys.argv[1:])
    code, out, err = jobs.recv()
print(out, end="", flush=True)
print(err, end="", file=sys.stderr)
sys.exit(code)
"""


def _serve(jobs: Listener) -> None:
    """Run the jobs that a block asks for, one after the other, until told that it has ended."""
    while True:
        with jobs.accept() as asked:
            arguments = asked.recv()
            if arguments is None:
                return
            _answer(asked, arguments)


def _answer(asked: Connection, arguments: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = importlib.import_module(f"jobs.{arguments[0]}").main(arguments[1:])
        except SystemExit as ended:  # of the options' parser
            code = ended.code
    asked.send((code, out.getvalue(), err.getvalue()))


def _run_python(text: str) -> Ended:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, "<page>", "exec"), {"__name__": "__main__"})
    return Ended(0, out.getvalue(), "")


def difference(shown: str, printed: str) -> str | None:
    """The first line of `shown` that is not in `printed` where it must be; None where all are.

    Numbers, ids, dates, spaces and the lines of tables may differ. Where `shown` has no CUT, no line may be left out.
    """
    there = list(_lines(printed))
    place, may_skip = 0, False
    for line in _lines(shown):
        if line == CUT:
            may_skip = True
            continue
        pattern = re.compile(".*".join(map(re.escape, line.split(CUT))))
        last = len(there) if may_skip else place + 1
        found = next((i for i in range(place, min(last, len(there))) if pattern.fullmatch(there[i])), None)
        if found is None:
            return line
        place, may_skip = found + 1, False
    if place < len(there) and not may_skip:
        return f"the page lacks: {there[place]}"
    return None


_ALIKE = (
    (re.compile(r"[\u2500-\u257f|]+"), " "),  # the lines of tables
    (re.compile(r"\b\d{8}T\d{6}-[0-9a-f]{6}\b"), "0"),  # ids of runs
    (re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{8,}\b"), "0"),  # versions, fingerprints
    (re.compile(r"\d+(?:[.,:]\d+)*"), "0"),
    (re.compile(r"(?:[+\u2212<>]|(?<!\S)-)0|\u2013"), "0"),  # signs, limits, and what stands for no number
    (re.compile(r"\b0 (?:kB|MB|GB|B)\b"), "0 B"),
    (re.compile(r"\b0 (?:h 0 min|min 0 s)\b"), "0 s"),
    (re.compile(r"\s+"), " "),
)


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        for pattern, same in _ALIKE:
            line = pattern.sub(same, line)
        if line.strip():
            yield line.strip()
