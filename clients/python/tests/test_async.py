"""Sessions of the client for asyncio: what differs from the blocking one, and what happens when tasks are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import anyio
import httpx2
import pytest
from daemon import PATIENCE, Daemon, soon
from websockets.asyncio.client import connect

from herd_client import AsyncHerd, SessionLost


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, PATIENCE))


def test_a_session_keeps_its_worker_and_ends_with_its_block(shared: Daemon) -> None:
    async def test() -> None:
        async with AsyncHerd(shared.gateway) as herd:
            async with herd.session() as session:
                assert [(await session.get("/count")).json() for _ in range(3)] == [1, 2, 3]
                assert session.id in shared.sessions() and session.worker is not None
                with pytest.raises(ValueError, match="has to begin with a slash"):
                    await session.get("count")

                async def pieces() -> AsyncIterator[bytes]:
                    yield b"in "
                    yield b"pieces"

                seen = [
                    await session.post("/echo", content=pieces()),
                    await session.put("/echo", json=[1]),
                    await session.patch("/echo", data={"a": "b"}),
                    await session.delete("/echo", params={"q": 1}),
                ]
                assert [one.json()["body"] for one in seen] == ["in pieces", "[1]", "a=b", ""]
                assert ["accept-encoding", "identity"] in seen[0].json()["headers"]
                assert (await session.head("/status/204")).status_code == 204
                async with session.stream("GET", "/events") as response:
                    assert [event.data async for event in httpx2.EventSource(response)] == ["0", "1", "2"]
                async with connect(session.websocket_url("/ws"), additional_headers=session.headers) as socket:
                    await socket.send("hello")
                    assert await socket.recv() == "hello"
            assert session.id not in shared.sessions()
            with pytest.raises(SessionLost):
                await session.get("/count")
            await session.end()

    run(test())


def test_many_tasks_share_a_herd_and_a_session(shared: Daemon) -> None:
    async def test() -> None:
        async with AsyncHerd(shared.gateway) as herd, herd.session() as session:
            answers = await asyncio.gather(*(session.get("/count") for _ in range(50)))
            assert len({answer.headers["herd-worker"] for answer in answers}) == 1
            assert [answer.status_code for answer in answers] == [200] * 50
            await asyncio.gather(session.end(), session.end(), session.end())

    run(test())


async def use(herd: AsyncHerd, begun: asyncio.Future[str], id: str | None = None) -> None:
    async with herd.session(id) as session:
        await session.get("/count")
        begun.set_result(session.id)
        await session.get("/never", timeout=None)


@pytest.mark.parametrize("times", [1, 3])
def test_a_task_that_is_cancelled_ends_its_session(shared: Daemon, times: int) -> None:
    async def test() -> None:
        async with AsyncHerd(shared.gateway) as herd:
            begun: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(use(herd, begun))
            session = await begun
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await herd.session().get("/count"), "the connections are of use as before"
        await asyncio.to_thread(soon, lambda: session not in shared.sessions())

    run(test())


def test_a_task_that_is_cancelled_again_while_it_ends_its_session_ends_it_all_the_same(shared: Daemon) -> None:
    async def test(steps: int) -> None:
        async with AsyncHerd(shared.gateway) as herd:
            begun: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(use(herd, begun, f"again-{steps}"))
            await begun
            task.cancel()
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        # The end of the loop cancels what is left.

    for steps in range(8):
        run(test(steps))
    soon(lambda: not [session for session in shared.sessions() if session.startswith("again-")])


def test_a_group_of_tasks_in_which_one_fails_ends_the_sessions_of_all(shared: Daemon) -> None:
    async def fail(begun: asyncio.Future[str]) -> None:
        await begun
        raise ValueError("the task's own")

    async def test() -> None:
        async with AsyncHerd(shared.gateway) as herd:
            begun: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            # It cancels the others again whenever they wait for something.
            with pytest.raises(Exception, match="unhandled errors"):
                async with anyio.create_task_group() as group:
                    group.start_soon(use, herd, begun)
                    group.start_soon(fail, begun)
        await asyncio.to_thread(soon, lambda: begun.result() not in shared.sessions())

    run(test())


def test_a_request_that_is_cancelled_leaves_the_session_as_it_was(shared: Daemon) -> None:
    async def test() -> None:
        async with AsyncHerd(shared.gateway) as herd, herd.session() as session:
            assert (await session.get("/count")).json() == 1

            def leases() -> int:
                return int(shared.admin(f"/v1/sessions/{session.id}")["leases"])

            for _ in range(20):
                request = asyncio.create_task(session.get("/never"))
                await asyncio.to_thread(soon, lambda: leases() == 1)
                request.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await request
                await asyncio.to_thread(soon, lambda: leases() == 0)
            assert (await session.get("/count")).json() == 2

    run(test())


def test_leaving_the_herd_ends_what_it_has_made_and_nothing_else(shared: Daemon) -> None:
    async def test() -> None:
        async with AsyncHerd(shared.gateway) as herd:
            forgotten = [herd.session() for _ in range(3)]
            chosen = herd.session("somebody-elses")
            await asyncio.gather(*(session.get("/count") for session in [*forgotten, chosen]))
        left = shared.sessions()
        assert "somebody-elses" in left and not {session.id for session in forgotten} & set(left)
        for session in [*forgotten, chosen]:
            with pytest.raises(RuntimeError, match="this Herd is closed"):
                await session.get("/count")
        with pytest.raises(RuntimeError, match="this Herd is closed"):
            await chosen.end()
        with pytest.raises(RuntimeError, match="this Herd is closed"):
            herd.session()
        async with AsyncHerd(shared.gateway) as herd, herd.session("somebody-elses") as session:
            assert (await session.get("/count")).json() == 2

    run(test())
