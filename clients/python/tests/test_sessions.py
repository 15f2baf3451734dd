"""Sessions of the blocking client, with a real daemon."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from daemon import Daemon, soon
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from herd_client import Herd, Session, SessionLost


@pytest.fixture
def herd(shared: Daemon) -> Iterator[Herd]:
    with Herd(shared.gateway) as herd:
        yield herd


def echo(session: Session, path: str = "/echo", **options: Any) -> dict[str, Any]:
    answer = session.get(path, **options)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_a_session_keeps_its_worker_and_ends_with_its_block(shared: Daemon, herd: Herd) -> None:
    with herd.session() as session:
        assert shared.admin(f"/v1/sessions/{session.id}")["status"] == 404, "nothing was sent yet"
        assert session.worker is None
        assert [session.get("/count").json() for _ in range(3)] == [1, 2, 3]
        assert session.worker is not None and session.worker.startswith("worker-")
        assert session.id in shared.sessions()
        assert len(session.id) == 32 and int(session.id, 16) >= 0
    assert session.id not in shared.sessions(), "the worker is gone when the block is left"
    with pytest.raises(SessionLost, match="was ended by its own client"):
        session.get("/count")


def test_two_sessions_have_two_workers_and_cookies_of_their_own(herd: Herd) -> None:
    with herd.session() as one, herd.session() as other:
        assert (one.get("/count").json(), other.get("/count").json()) == (1, 1)
        assert one.worker != other.worker and one.id != other.id
        one.get("/cookie")
        assert ["cookie", "a=b; sid=other"] in echo(one)["headers"]
        assert not [value for name, value in echo(other)["headers"] if name == "cookie"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_is_left_by_an_exception_ends_its_session(
    shared: Daemon, herd: Herd, error: type[BaseException]
) -> None:
    with pytest.raises(error), herd.session() as session:
        session.get("/count")
        raise error
    soon(lambda: session.id not in shared.sessions())


def test_ending_twice_or_without_a_request_is_no_error(herd: Herd) -> None:
    session = herd.session()
    session.end()
    with herd.session() as session:
        session.get("/count")
        session.end()
        session.end()


def test_leaving_the_herd_ends_what_it_has_made_and_nothing_else(shared: Daemon) -> None:
    with Herd(shared.gateway) as herd:
        forgotten, chosen = herd.session(), herd.session("somebody-elses")
        forgotten.get("/count")
        chosen.get("/count")
    assert "somebody-elses" in shared.sessions() and forgotten.id not in shared.sessions()
    with Herd(shared.gateway) as herd, herd.session("somebody-elses") as chosen:
        assert chosen.get("/count").json() == 2
    assert "somebody-elses" not in shared.sessions()


def test_a_closed_herd_sends_nothing_more(shared: Daemon) -> None:
    with Herd(shared.gateway) as herd:
        made, chosen, unused = herd.session(), herd.session("still-there"), herd.session()
        made.get("/count")
        chosen.get("/count")
    for session in (made, chosen, unused):
        with pytest.raises(RuntimeError, match="this Herd is closed"):
            session.get("/count")
    with pytest.raises(RuntimeError, match="this Herd is closed"):
        herd.session()
    with pytest.raises(RuntimeError, match="this Herd is closed"):
        chosen.end()
    for session in (made, unused):
        session.end()
    herd.close()
    assert "still-there" in shared.sessions() and unused.id not in shared.sessions()
    shared.admin("/v1/sessions/still-there", "DELETE")


def test_every_method_body_and_field_reaches_the_worker(herd: Herd) -> None:
    with herd.session() as session:
        seen: list[dict[str, Any]] = [
            session.post("/echo?a=1", content="text", headers={"x-own": "yes"}).json(),
            session.put("/echo", json={"a": 1}).json(),
            session.patch("/echo", data={"a": "b c"}).json(),
            session.delete("/echo", params={"q": ["1", "2"]}).json(),
            session.request("POST", "/echo", content=(piece for piece in [b"in ", b"pieces"])).json(),
        ]
        assert [one["method"] for one in seen] == ["POST", "PUT", "PATCH", "DELETE", "POST"]
        assert [one["body"] for one in seen] == ["text", '{"a":1}', "a=b+c", "", "in pieces"]
        assert [one["path"] for one in seen[::3]] == ["/echo?a=1", "/echo?q=1&q=2"]
        assert ["x-own", "yes"] in seen[0]["headers"]
        assert session.head("/echo").status_code == 200
        for one in seen:
            names = [name.lower() for name, _ in one["headers"]]
            assert "herd-session" not in names and ["x-session-id", session.id] in one["headers"]


def test_a_worker_is_not_asked_to_compress_unless_the_caller_does(herd: Herd) -> None:
    with herd.session() as session:
        asked = [echo(session), echo(session, headers={"Accept-Encoding": "gzip"})]
        fields = [[value for name, value in one["headers"] if name.lower() == "accept-encoding"] for one in asked]
        assert fields == [["identity"], ["gzip"]]


def test_a_workers_own_failures_are_answers_and_it_cannot_pass_for_the_gateway(herd: Herd) -> None:
    with herd.session() as session:
        for status in (400, 404, 429, 500, 502, 503):
            assert session.get(f"/status/{status}").status_code == status
        forged = session.get("/forged")
        assert (forged.status_code, forged.json()["detail"]) == (502, "forged")
        assert forged.headers["herd-worker"] == session.worker != "worker-99" and forged.headers["x-own"] == "1"
        assert session.get("/redirect").status_code == 302, "nobody is led elsewhere with the session's ID"


def test_an_answer_is_read_piece_by_piece(herd: Herd) -> None:
    with herd.session() as session:
        with session.stream("GET", "/events") as response:
            events = [(event.event, event.data) for event in httpx2.EventSource(response)]
        assert events == [("tick", "0"), ("tick", "1"), ("tick", "2")]
        with session.stream("GET", "/stream") as response:
            assert next(response.iter_lines()) == "first"
        assert session.get("/count").json() == 1, "leaving a stream early leaves the session as it was"


def test_threads_share_a_herd_and_a_session(herd: Herd) -> None:
    counts: list[int] = []
    with herd.session() as session:
        session.get("/count")
        threads = [threading.Thread(target=lambda: counts.append(session.get("/count").json())) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(counts) == 16


def test_a_websocket_of_another_library_is_in_the_session(shared: Daemon, herd: Herd) -> None:
    with herd.session() as session:
        with connect(session.websocket_url("/ws"), additional_headers=session.headers) as socket:
            socket.send("hello")
            assert socket.recv() == "hello"
            assert session.id in shared.sessions()
            assert "herd-session" not in session.headers, "nobody has told yet that the session is there"
            assert session.get("/count").json() == 1
            assert session.headers["herd-session"] == "resume"
            session.end()
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4000
    with pytest.raises(InvalidStatus) as refused:
        connect(session.websocket_url("/ws"), additional_headers=session.headers)
    assert refused.value.response.status_code == 404, "a WebSocket starts no session anew that was lost"


def test_a_websocket_alone_is_ended_too(shared: Daemon, herd: Herd) -> None:
    async def talk() -> None:
        async with connect_async(session.websocket_url("/ws"), additional_headers=session.headers) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"

    with herd.session() as session:
        asyncio.run(talk())
        assert session.id in shared.sessions()
    assert session.id not in shared.sessions()
