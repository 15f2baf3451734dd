"""Where a session's ID goes: against real gateways of every kind, and what cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from daemon import PATIENCE, Daemon, soon
from websockets.sync.client import connect

from herd_client import AsyncHerd, GatewayTimeout, Herd, InvalidSession, ResponseBroken, SessionLost


@pytest.mark.parametrize(
    ("key", "path", "seen"),
    [
        ("header:X-Tenant", "/echo?a=1", "/echo?a=1"),
        ("cookie:sid", "/echo", "/echo"),
        ("query:who", "/echo?a=%26", "/echo?a=%26&b=2&who=ID"),
        ("path:1", "/echo?a=1", "/echo?a=1"),
        ("path:1", "/../a/.././echo", "/echo"),
        ("host", "/echo", "/echo"),
        ("query:first,header:second", "/echo", "/echo?first=ID"),
    ],
)
def test_every_session_key_leads_to_the_session_and_ends_it(key: str, path: str, seen: str) -> None:
    with Daemon(network={"session_key": key}) as daemon:
        # The name is what the requests say; where they go is the address of the daemon.
        gateway = daemon.gateway.replace("127.0.0.1", "localhost") if key == "host" else daemon.gateway
        params: Any = {"b": "2"} if "b=2" in seen else None
        with Herd(gateway, session_key=key) as herd, herd.session() as session:
            first = session.get(path, params=params)
            assert first.json()["path"] == seen.replace("ID", session.id), first.text
            assert ["x-session-id", session.id] in first.json()["headers"]
            assert session.get("/cookie").json() == "set"
            assert session.get("/count").json() == 1
            assert daemon.sessions() == [session.id]
            if key != "host":
                with connect(session.websocket_url("/ws"), additional_headers=session.headers) as socket:
                    socket.send("hello")
                    assert socket.recv() == "hello"
            assert daemon.sessions() == [session.id]
        assert daemon.sessions() == []


def test_a_path_before_the_session_is_that_of_the_gateway_or_of_the_request() -> None:
    with Daemon(network={"session_key": "path:2"}) as daemon:
        with Herd(daemon.gateway, session_key="path:2") as herd, herd.session() as session:
            assert session.get("/status/200").status_code == 200
            with pytest.raises(ValueError, match="has to have 1 segments before"):
                session.get("/")
        with Herd(daemon.gateway + "/status/", session_key="path:1") as herd, herd.session("alice") as session:
            assert session.url("/404?x=1") == f"{daemon.gateway}/status/alice/404?x=1"
            assert session.get("/404").status_code == 404
            assert daemon.sessions() == ["alice"]


@pytest.fixture(scope="module")
def routed() -> Iterator[Daemon]:
    """A daemon in which the path leads to one pool or another."""
    routes = [{"path_prefix": "/tools", "strip_prefix": True, "pool": "tools"}, {"pool": "others"}]
    with Daemon(pools={"tools": {}, "others": {}}, routes=routes) as daemon:
        yield daemon


def test_a_session_in_the_pool_of_its_path_is_explained_and_ended_there(routed: Daemon) -> None:
    with Herd(routed.gateway) as herd, herd.session() as session, herd.session("alice") as another:
        with pytest.raises(ResponseBroken):
            session.get("/tools/broken")
        assert session.get("/tools/count", params={"a": "b"}).headers["herd-pool"] == "tools"
        session.end()
        assert session.id not in routed.sessions()

        another.get("/tools/count")
        # In the other pool, that would be another session.
        with pytest.raises(SessionLost):
            another.get("/count")
    with Herd(routed.gateway) as herd, herd.session("alice") as session:
        assert session.get("/tools/count").json() == 2
    assert routed.sessions() == []


def test_a_session_in_the_pool_of_its_path_is_explained_and_ended_there_for_asyncio_too(routed: Daemon) -> None:
    async def test() -> None:
        async with AsyncHerd(routed.gateway) as herd, herd.session() as session:
            with pytest.raises(ResponseBroken):
                await session.get("/tools/broken")
            assert (await session.get("/tools/count")).headers["herd-pool"] == "tools"
            await session.end()
            assert routed.sessions() == []

    asyncio.run(asyncio.wait_for(test(), PATIENCE))


def test_a_session_that_another_client_began_or_nobody_answered_is_ended_in_the_pool_of_its_path(routed: Daemon) -> None:
    with Herd(routed.gateway) as herd:
        with herd.session() as session, connect(session.websocket_url("/tools/ws"), additional_headers=session.headers):
            assert routed.sessions() == [session.id]
        assert routed.sessions() == []
        with herd.session() as session, pytest.raises(GatewayTimeout):
            session.get("/tools/never", timeout=0.1)
        assert routed.sessions() == []


def test_a_forgotten_session_of_asyncio_is_ended_in_the_pool_of_its_path(routed: Daemon) -> None:
    async def begin() -> AsyncHerd:
        herd = AsyncHerd(routed.gateway)
        await herd.session().get("/tools/count")
        # What a loop that has ended leaves open is not what is tested.
        await herd._transport.aclose()
        return herd

    herd = asyncio.run(begin())
    assert len(routed.sessions()) == 1
    # As the end of the program does.
    herd._forgotten.end_all()
    soon(lambda: not routed.sessions())


def test_addresses_and_fields_for_other_clients() -> None:
    herd = Herd("https://herd.example.com:8443", session_key="host", token="a-token-of-these-tests")
    assert herd.session("alice").url("/x") == "https://alice.herd.example.com:8443/x"
    assert herd.session("alice").websocket_url("/x") == "wss://alice.herd.example.com:8443/x"
    assert herd.session("alice").headers == {"authorization": "Bearer a-token-of-these-tests"}
    assert "a-token" not in repr(herd) + repr(herd.session("alice"))
    assert Herd(session_key="cookie:sid").session("a").headers == {"cookie": "sid=a"}
    assert Herd(session_key="header:X-Session-ID").session("a").headers == {"x-session-id": "a"}
    assert Herd(session_key="query:s").session("a&b").url("/x") == "http://127.0.0.1:8080/x?s=a%26b"
    assert Herd(session_key="path:1").session("a/b").url("/") == "http://127.0.0.1:8080/a%2Fb/"


def test_a_path_never_leads_elsewhere() -> None:
    session = Herd(session_key="path:1").session("alice")
    for path in ("//evil.example/x", "/@evil.example", "/../../bob/x", "/%2e%2e/bob", "/\\evil.example", "/x#y"):
        address = session.url(path)
        assert address.startswith("http://127.0.0.1:8080/alice/"), address
        assert "#" not in address
    for path in ("", "x", "http://evil.example/", "@evil.example", "?x"):
        with pytest.raises(ValueError, match="has to begin with a slash"):
            session.url(path)
    with pytest.raises(ValueError, match="is none"):
        session.url("/a\nb")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gateway": "127.0.0.1:8080"}, "gateway"),
        ({"gateway": "ftp://h"}, "http://HOST:PORT"),
        ({"gateway": "http://"}, "http://HOST:PORT"),
        ({"gateway": "http://user:secret@h"}, "has a user"),
        ({"gateway": "http://h/?x=1"}, "a query"),
        ({"gateway": "http://h:port"}, "gateway"),
        ({"session_key": "header"}, "session_key: 'header' is no session key"),
        ({"session_key": "header:a b"}, "is no session key"),
        ({"session_key": "path:0"}, "is no session key"),
        ({"session_key": "host:x"}, "is no session key"),
        ({"session_key": "host"}, "needs a name, and 127.0.0.1 is an address"),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")) as refused:
        Herd(**options)  # type: ignore[arg-type]
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "session"),
    [
        ("cookie:s", "a;b"),
        ("cookie:s", '"a"'),
        ("path:1", ".."),
        ("host", "Alice"),
        ("host", "a.b"),
        ("host", "a" * 64),
    ],
)
def test_an_id_that_the_key_cannot_carry_is_refused_at_once(key: str, session: str) -> None:
    with pytest.raises(InvalidSession, match="cannot be"):
        Herd("http://herd.example.com", session_key=key).session(session)
