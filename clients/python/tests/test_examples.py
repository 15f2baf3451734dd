"""The examples, and those of README.md, run as they are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import PATIENCE, Daemon

HOME = Path(__file__).parents[1]

CHROME = {
    "channel": "chrome",
    # A machine without a network must not make Chromium wait for it. The tests may run as root, whom Chromium refuses
    # its own sandbox.
    "args": ["--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update"],
}


def run(program: list[str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *program, *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def repl(**sections: object) -> Daemon:
    return Daemon([os.environ["HERD"], "repl"], **sections)


def test_the_examples_run() -> None:
    with repl(resources={"max_workers": 3, "acquire_timeout": "2s"}) as daemon:

        def example(name: str) -> str:
            return run([str(HOME / "examples" / name)], daemon.gateway)

        assert re.fullmatch(r"42 from worker-\d+\n", example("remember.py"))
        assert example("many.py") == f"{[number * number for number in range(8)]}\n"
        assert example("start_over.py") == "42\n"
        assert daemon.sessions() == []


def test_the_programs_of_the_readme_run() -> None:
    programs = re.findall(r"```python\n(.*?)```", (HOME / "README.md").read_text(), re.DOTALL)
    assert len(programs) >= 3
    with repl() as daemon:
        for program in programs:
            if "playwright" not in program:
                run(["-c", program.replace("http://127.0.0.1:8080", daemon.gateway)])
        assert daemon.sessions() == []


def test_playwright_has_a_browser_in_its_session() -> None:
    modules = os.environ.get("HERD_TEST_NODE_MODULES")
    if modules is None:
        pytest.fail("HERD_TEST_NODE_MODULES is not set; run this test with: cargo xtask test -- clients_python")
    command = ["npx", "playwright-core", "run-server", "--port", "{{.Port}}", "--host", "127.0.0.1"]
    worker = {"health_path": "/", "cwd": str(Path(modules).parent)}
    with Daemon(command, worker=worker) as daemon:
        seen = run([str(HOME / "examples/browser.py")], daemon.gateway, json.dumps(CHROME))
        assert re.fullmatch(r"hello from session [0-9a-f]{32}\n", seen)
        assert daemon.sessions() == []
