"""What becomes of sessions when their program ends: programs of their own, which end in every way."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from daemon import PATIENCE, Daemon, soon

BEGIN = "import os, sys, time; from herd_client import *; herd = Herd(sys.argv[1]); session = herd.session()"
USE = "session.get('/count'); print(session.id, flush=True)"


def program(*lines: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", "\n".join(lines)]


def begin(daemon: Daemon, *lines: str) -> tuple[subprocess.Popen[str], str]:
    """Starts the program, and answers the session that it says it has."""
    process = subprocess.Popen(
        [*program(*lines), daemon.gateway],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=PATIENCE)
    return errors


@pytest.mark.parametrize("last", ["", "sys.exit(3)", "raise ValueError('mine')", "del session", "herd = session = None"])
def test_a_program_that_forgets_its_session_ends_it_at_its_own_end(shared: Daemon, last: str) -> None:
    process, session = begin(shared, BEGIN, USE, last)
    errors = end(process)
    assert "herd_client" not in errors, errors
    soon(lambda: session not in shared.sessions())


def test_a_program_of_asyncio_that_forgets_its_session_ends_it_too(shared: Daemon) -> None:
    process, session = begin(
        shared,
        "import asyncio, sys; from herd_client import *",
        "async def main():",
        "    session = AsyncHerd(sys.argv[1]).session()",
        "    await session.get('/count'); print(session.id, flush=True)",
        "asyncio.run(main())",
    )
    end(process)
    soon(lambda: session not in shared.sessions())


def test_a_session_of_a_chosen_id_outlives_the_program(shared: Daemon) -> None:
    process, _ = begin(shared, BEGIN, "session = herd.session('outlives')", USE)
    assert "Traceback" not in end(process)
    assert "outlives" in shared.sessions()
    shared.admin("/v1/sessions/outlives", "DELETE")


@pytest.mark.parametrize("first", ["", "import asyncio"])
def test_an_interrupt_ends_the_session_of_a_block(shared: Daemon, first: str) -> None:
    blocking = [BEGIN, "with session:", "    session.get('/count'); print(session.id, flush=True)", "    time.sleep(60)"]
    waiting = [
        "import asyncio, sys; from herd_client import *",
        "async def main():",
        "    async with AsyncHerd(sys.argv[1]) as herd, herd.session() as session:",
        "        await session.get('/count'); print(session.id, flush=True)",
        "        await session.get('/never', timeout=None)",
        "asyncio.run(main())",
    ]
    process, session = begin(shared, *(waiting if first else blocking))
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in end(process)
    soon(lambda: session not in shared.sessions())


def test_a_child_of_a_fork_ends_nothing_of_its_parents(shared: Daemon) -> None:
    process, session = begin(
        shared,
        BEGIN,
        USE,
        "child = os.fork()",
        "if child == 0:",
        "    sys.exit()",
        "os.waitpid(child, 0); print(session.get('/count').json(), flush=True); sys.stdin.read()",
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "2"
    assert session in shared.sessions()
    end(process)
    soon(lambda: session not in shared.sessions())


def test_a_daemon_that_is_gone_does_not_keep_a_program_from_ending() -> None:
    with Daemon() as daemon:
        process, _ = begin(daemon, BEGIN, USE, "sys.stdin.read()")
        daemon.kill()
        assert "could not be ended, and ends by its time to live" in end(process)
