"""What parent and child have after a fork: sessions of their own, and never each other's answers."""

from __future__ import annotations

from daemon import Daemon, soon
from test_exit import begin, end

SYNC = """
import os, sys
from herd_client import *

with Herd(sys.argv[1]) as herd:
    session = herd.session()
    session.get('/count')
    print(session.id, flush=True)
    is_asked, asked = os.pipe()
    # The one connection there is lies idle in both.
    child = os.fork()
    if child == 0:
        with herd.session() as own, own.stream('GET', '/stream') as response:
            assert next(response.iter_lines()) == 'first'
            os.write(asked, own.id.encode())
            sys.stdin.readline()
        print(session.get('/count', timeout=5).json(), flush=True)
        sys.exit()
    print(os.read(is_asked, 100).decode(), flush=True)
    print(session.get('/count', timeout=5).json(), flush=True)
    os.waitpid(child, 0)
    sys.stdin.read()
"""

ASYNC = """
import asyncio, os, sys
from herd_client import *

async def begin(herd, asked):
    async with herd.session() as own, own.stream('GET', '/stream') as response:
        assert await anext(response.aiter_lines()) == 'first'
        os.write(asked, own.id.encode())
        sys.stdin.readline()

async def in_child(herd, asked, session):
    await begin(herd, asked)
    print((await session.get('/count', timeout=5)).json(), flush=True)

async def main():
    async with AsyncHerd(sys.argv[1]) as herd:
        session = herd.session()
        await session.get('/count')
        print(session.id, flush=True)
        is_asked, asked = os.pipe()
        child = os.fork()
        if child == 0:
            asyncio.run(in_child(herd, asked, session))
            os._exit(0)
        print(os.read(is_asked, 100).decode(), flush=True)
        print((await session.get('/count', timeout=5)).json(), flush=True)
        os.waitpid(child, 0)
        sys.stdin.read()

asyncio.run(main())
"""


def check_parent_and_child(shared: Daemon, program: str) -> None:
    process, session = begin(shared, program)
    assert process.stdin is not None and process.stdout is not None
    own = process.stdout.readline().strip()
    assert own in shared.sessions() and own != session
    # While the child reads an answer, the parent gets its own, in its own session.
    assert process.stdout.readline().strip() == "2"
    process.stdin.write("\n")
    process.stdin.flush()
    # The child can ask in the parent's session too, and ends nothing but its own.
    assert process.stdout.readline().strip() == "3"
    soon(lambda: own not in shared.sessions())
    assert session in shared.sessions()
    assert end(process) == ""
    soon(lambda: session not in shared.sessions())


def test_after_a_fork_parent_and_child_get_their_own_answers(shared: Daemon) -> None:
    check_parent_and_child(shared, SYNC)


def test_after_a_fork_parent_and_child_get_their_own_answers_with_asyncio_too(shared: Daemon) -> None:
    check_parent_and_child(shared, ASYNC)


def test_an_answer_that_began_before_a_fork_is_the_parents(shared: Daemon) -> None:
    program = """
import os, sys
from herd_client import *

with Herd(sys.argv[1]) as herd, herd.session() as session:
    print(session.id, flush=True)
    with session.stream('GET', '/events') as response:
        child = os.fork()
        if child == 0:
            try:
                response.read()
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(len(response.read()), flush=True)
"""
    process, _ = begin(shared, program)
    assert process.stdout is not None
    assert "by the process that has asked for it" in process.stdout.readline()
    assert int(process.stdout.readline()) > 0
    assert end(process) == ""
