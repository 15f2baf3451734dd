"""Where a session's ID goes: against real gateways of every kind, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from daemon import Daemon
from websockets.sync.client import connect

from herd_client import Herd, InvalidSession


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
