"""What can go wrong, each brought about for real, with the type that tells what to do."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from daemon import PATIENCE, Daemon, soon

import herd_client
from herd_client import AsyncHerd, Herd, HerdError, Session

TOKEN = "a-token-of-these-tests"
LIMITED = "another-token-of-these-tests"


def access(**tenants: Any) -> dict[str, Any]:
    tokens = [
        {"name": "free", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()},
        {"name": "limited", "tenant": "acme", "sha256": hashlib.sha256(LIMITED.encode()).hexdigest()},
    ]
    return {"access": {"tokens": tokens}, "tenants": {"named": tenants}}


def fails(kind: type[HerdError], request: Callable[[], object]) -> HerdError:
    """The request fails with exactly this type of error, which says what to do."""
    with pytest.raises(HerdError) as caught:
        request()
    error = caught.value
    assert type(error) is kind, repr(error)
    assert error.detail and error.remedy in str(error)
    if error.problem is not None:
        assert error.problem.type == f"urn:herd:problem:{error.failure}"
        assert error.problem.status == error.status
    return error


def fails_async(kind: type[HerdError], gateway: str, **options: Any) -> HerdError:
    """The same for a first request of the other client."""

    async def ask() -> None:
        async with AsyncHerd(gateway, **options) as herd, herd.session() as session:
            await session.get("/count")

    return fails(kind, lambda: asyncio.run(ask()))


@contextmanager
def begun(gateway: str, **options: Any) -> Generator[Session, None, None]:
    with Herd(gateway, **options) as herd, herd.session() as session:
        assert session.get("/count").json() == 1
        yield session


def test_every_error_is_exported_and_says_what_to_do() -> None:
    kinds = [kind for kind in vars(herd_client).values() if isinstance(kind, type) and issubclass(kind, HerdError)]
    assert len(kinds) == 15
    remedies = {kind.remedy for kind in kinds if kind not in (HerdError, herd_client.RequestRefused)}
    assert len(remedies) == 13, "each its own"


def test_a_full_pool_is_told_with_when_to_try_again() -> None:
    with Daemon(resources={"min_workers": 1, "max_workers": 1, "acquire_timeout": "50ms"}) as daemon:
        # The only worker is there before anybody waits for it.
        soon(lambda: [worker for worker in daemon.admin("/v1/workers")["items"] if worker["state"] == "spare"])
        check_full(daemon)


def check_full(daemon: Daemon) -> None:
    with begun(daemon.gateway), Herd(daemon.gateway) as herd:
        full = fails(herd_client.PoolFull, lambda: herd.session().get("/count"))
        assert (full.failure, full.status, full.retry_after) == ("acquire-timeout", 503, 1.0)
        assert fails_async(herd_client.PoolFull, daemon.gateway).failure == "acquire-timeout"


def test_a_crashed_session_is_lost_and_never_silently_a_new_one(shared: Daemon) -> None:
    with begun(shared.gateway) as session:
        shared.kill_worker_of(session.id)
        soon(lambda: session.id not in shared.sessions())
        lost = fails(herd_client.SessionLost, lambda: session.get("/count"))
        assert (lost.failure, lost.status, lost.session) == ("no-such-session", 404, session.id)
        again = fails(herd_client.SessionLost, lambda: session.get("/count"))
        assert again.failure == lost.failure and again is not lost
    assert session.id not in shared.sessions()


def test_a_crash_while_the_worker_answers_is_told_with_its_reason(shared: Daemon) -> None:
    with begun(shared.gateway) as session:
        lost = fails(herd_client.SessionLost, lambda: session.get("/crash"))
        assert (lost.failure, lost.status) == ("worker-crashed", 502)
        assert "crashed" in lost.detail
    with Herd(shared.gateway) as herd, herd.session() as session:
        # Also if it was the first request.
        assert fails(herd_client.SessionLost, lambda: session.get("/crash")).failure == "worker-crashed"
        again = fails(herd_client.SessionLost, lambda: session.get("/count"))
        assert (again.failure, again.status) == ("worker-crashed", 502)


def test_a_crash_in_the_middle_of_an_answer_is_a_lost_session(shared: Daemon) -> None:
    with begun(shared.gateway) as session, session.stream("GET", "/stream") as response:
        lines = response.iter_lines()
        assert next(lines) == "first"
        shared.kill_worker_of(session.id)
        lost = fails(herd_client.SessionLost, lambda: next(lines))
        assert lost.failure in ("worker-crashed", "no-such-session") and "broke off" in lost.detail
        assert "crashed" in lost.detail, "it is not said to have been ended by somebody"


def test_a_crash_in_the_middle_of_an_answer_is_a_lost_session_for_asyncio_too(shared: Daemon) -> None:
    async def read() -> None:
        async with AsyncHerd(shared.gateway) as herd, herd.session() as session:
            async with session.stream("GET", "/stream") as response:
                async for line in response.aiter_lines():
                    assert line == "first"
                    shared.kill_worker_of(session.id)

    fails(herd_client.SessionLost, lambda: asyncio.run(read()))


def test_a_session_that_somebody_ends_is_lost(shared: Daemon) -> None:
    with begun(shared.gateway) as session, session.stream("GET", "/stream") as response:
        shared.admin(f"/v1/sessions/{session.id}", "DELETE")
        lost = fails(herd_client.SessionLost, lambda: list(response.iter_lines()))
        assert lost.failure in ("session-ended", "no-such-session")
        assert fails(herd_client.SessionLost, lambda: session.get("/count")).session == session.id


def test_a_session_that_somebody_begins_anew_is_still_lost(shared: Daemon) -> None:
    with begun(shared.gateway) as session:
        shared.admin(f"/v1/sessions/{session.id}", "DELETE")
        with Herd(shared.gateway) as herd, herd.session(session.id) as other:
            other.get("/count")
            lost = fails(herd_client.SessionLost, lambda: session.get("/count"))
            assert "somebody has begun it anew" in lost.detail
            session.end()
            assert other.get("/count").json() == 3, "the new one is not this one's to end"


def test_ending_while_the_worker_answers_is_told_to_whoever_reads(shared: Daemon) -> None:
    with begun(shared.gateway) as session, session.stream("GET", "/stream") as response:
        lines = response.iter_lines()
        next(lines)
        session.end()
        lost = fails(herd_client.SessionLost, lambda: next(lines))
        assert "ended by its own client" in lost.detail


def test_an_answer_that_the_worker_breaks_off_is_no_lost_session(shared: Daemon) -> None:
    with begun(shared.gateway) as session:
        broken = fails(herd_client.ResponseBroken, lambda: session.get("/broken"))
        assert broken.status is None
        assert session.get("/count").json() == 2


def test_who_waits_too_long_is_told_that_the_session_goes_on(shared: Daemon) -> None:
    with begun(shared.gateway) as session:
        late = fails(herd_client.GatewayTimeout, lambda: session.get("/never", timeout=0.1))
        assert late.status is None
        with session.stream("GET", "/stream", timeout=0.1) as response:
            fails(herd_client.ResponseBroken, lambda: list(response.iter_lines()))
        assert session.get("/count").json() == 2
    with Daemon(network={"response_timeout": "100ms"}) as daemon, begun(daemon.gateway) as session:
        late = fails(herd_client.GatewayTimeout, lambda: session.get("/never"))
        assert (late.failure, late.status) == ("worker-timeout", 504)


def test_a_worker_that_cannot_be_started_is_told_with_the_reason() -> None:
    from daemon import WORKER

    with Daemon([*WORKER, "fails"]) as daemon, Herd(daemon.gateway) as herd:
        failed = fails(herd_client.StartFailed, lambda: herd.session().get("/count"))
        assert (failed.failure, failed.status, failed.retry_after) == ("spawn-failed", 503, 5.0)
        assert failed.problem is not None and failed.problem.session is not None
        fails_async(herd_client.StartFailed, daemon.gateway)


def test_tokens_and_limits_of_tenants_have_errors_of_their_own() -> None:
    with Daemon(**access(acme={"max_sessions": 1, "requests_per_second": 5})) as daemon:
        for wrong in (None, "a-token-that-nobody-knows"):
            with Herd(daemon.gateway, token=wrong) as herd:
                refused = fails(herd_client.Unauthorized, lambda: herd.session().get("/count"))
                assert (refused.failure, refused.status) == ("unauthorized", 401)
                assert "a-token" not in str(refused)
            fails_async(herd_client.Unauthorized, daemon.gateway, token=wrong)
        with begun(daemon.gateway, token=TOKEN) as session:
            assert session.headers["authorization"] == f"Bearer {TOKEN}"
        with begun(daemon.gateway, token=lambda: LIMITED) as session, Herd(daemon.gateway, token=LIMITED) as herd:
            many = fails(herd_client.TooManyRequests, lambda: herd.session().get("/count"))
            assert (many.failure, many.status, many.retry_after) == ("tenant-sessions", 429, 1.0)

            def hurry() -> None:
                for _ in range(100):
                    session.get("/count")

            many = fails(herd_client.TooManyRequests, hurry)
            assert many.failure == "too-many-requests" and many.retry_after is not None


def test_where_sessions_are_only_looked_up_none_is_started_or_ended() -> None:
    with Daemon(network={"lookup_only": True}) as daemon, Herd(daemon.gateway) as herd:
        missing = fails(herd_client.SessionNotFound, lambda: herd.session("alice").get("/count"))
        assert (missing.failure, missing.status, missing.session) == ("no-such-session", 404, "alice")
        with herd.session() as session:
            fails(herd_client.SessionNotFound, lambda: session.get("/count"))
            forbidden = fails(herd_client.Forbidden, session.end)
            assert (forbidden.failure, forbidden.status) == ("forbidden-end", 403)


def test_a_daemon_that_drains_is_told() -> None:
    with Daemon(network={"drain_timeout": "20s"}) as daemon, begun(daemon.gateway) as session:
        with session.stream("GET", "/stream") as response:
            lines = response.iter_lines()
            next(lines)
            with Herd(daemon.gateway) as herd:
                # A connection from before, since the daemon takes no new ones for long.
                herd.session().get("/count")
                daemon.terminate()
                soon(lambda: daemon.admin("/v1/stats").get("draining", True))
                draining = None
                while draining is None:
                    try:
                        herd.session().get("/count")
                    except HerdError as error:
                        draining = error
                assert isinstance(draining, (herd_client.Draining, herd_client.GatewayUnreachable)), repr(draining)


def test_no_gateway_or_another_server_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = "http://127.0.0.1:%d" % unused.getsockname()[1]
        with Herd(address) as herd:
            gone = fails(herd_client.GatewayUnreachable, lambda: herd.session().get("/count"))
            assert address in gone.detail and gone.status is None
            fails_async(herd_client.GatewayUnreachable, address)


def test_herds_own_admin_address_is_recognised(shared: Daemon) -> None:
    def with_async(path: str) -> None:
        async def ask() -> None:
            async with AsyncHerd(shared.admin_address) as herd, herd.session() as session:
                await session.get(path)

        asyncio.run(ask())

    with Herd(shared.admin_address) as herd:
        session = herd.session()
        asks = [lambda: session.get("/"), lambda: session.post("/eval", content=b"1"), session.end]
        for ask in [*asks, lambda: with_async("/"), lambda: with_async("/count")]:
            other = fails(herd_client.GatewayUnreachable, ask)
            assert other.detail == (
                f"{shared.admin_address} is herd's admin address; the gateway is another one, usually port 8080"
            )


def test_of_a_session_that_never_began_nothing_is_said_when_it_cannot_be_ended(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        fails_async(herd_client.GatewayUnreachable, "http://127.0.0.1:%d" % unused.getsockname()[1])
    with Daemon(**access()) as daemon:
        for gateway in (daemon.gateway, daemon.admin_address):
            with Herd(gateway) as herd, herd.session() as session, pytest.raises(HerdError):
                session.get("/count")
            refused = herd_client.Unauthorized if gateway == daemon.gateway else herd_client.GatewayUnreachable
            fails_async(refused, gateway)
        assert not caplog.records
        # Somebody else may have begun it, for all that is known.
        with Herd(daemon.gateway) as herd, herd.session() as session:
            assert session.headers
        assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: application/problem+json\r\ncontent-length: 2\r\n\r\n{}",
        b"not HTTP at all\r\n\r\n",
        b"",
    ],
)
def test_what_is_not_herds_gateway_is_told(answer: bytes) -> None:
    with serving(answer) as address, Herd(address) as herd:
        other = fails(herd_client.GatewayUnreachable, lambda: herd.session().get("/count"))
        assert address in other.detail


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"type": "urn:herd:problem:queue-full", "title": "t", "status": 503, "detail": "' + b"x" * 20_000 + b'"}', "answered 503 queue-full"),
        (b"[" * 10_000, "answered 503 queue-full"),
        (b"{}", "answered 503 queue-full"),
        (b"\xff\xfe\x00", "answered 503 queue-full"),
        (b'{"type": "urn:herd:problem:queue-full", "title": "t", "status": 503, "detail": "it is full"}', "it is full"),
    ],
)
def test_a_problem_that_is_too_long_or_none_at_all_is_told_by_its_field(body: bytes, detail: str) -> None:
    fields = b"herd-error: queue-full\r\nretry-after: soon\r\nconnection: close\r\n"
    head = b"HTTP/1.1 503 Full\r\n%scontent-length: %d\r\n\r\n" % (fields, len(body))
    with serving(head + body) as address, Herd(address) as herd:
        full = fails(herd_client.PoolFull, lambda: herd.session().get("/count"))
        assert detail in full.detail and full.retry_after is None


def test_a_daemon_that_is_killed_in_the_middle_of_an_answer_is_unreachable() -> None:
    with Daemon() as daemon, begun(daemon.gateway) as session:
        with session.stream("GET", "/stream") as response:
            lines = response.iter_lines()
            next(lines)
            daemon.kill()
            gone = fails(herd_client.GatewayUnreachable, lambda: next(lines))
            assert "went away while it answered" in gone.detail
        fails(herd_client.GatewayUnreachable, session.end)


def test_a_daemon_that_is_killed_is_unreachable_for_asyncio_too() -> None:
    async def read(daemon: Daemon) -> None:
        async with AsyncHerd(daemon.gateway) as herd, herd.session() as session:
            async with session.stream("GET", "/stream") as response:
                async for _ in response.aiter_lines():
                    daemon.kill()

    with Daemon() as daemon:
        fails(herd_client.GatewayUnreachable, lambda: asyncio.run(read(daemon)))


def test_an_id_that_is_none_is_refused_before_anything_is_sent(shared: Daemon) -> None:
    with Herd(shared.gateway) as herd:
        for wrong in ("", "a b", "é", "a\n", "x" * 257):
            fails(herd_client.InvalidSession, lambda wrong=wrong: herd.session(wrong))  # type: ignore[misc]
    with Herd(shared.gateway, session_key="header:X-Other") as herd:
        nowhere = fails(herd_client.InvalidSession, lambda: herd.session().get("/count"))
        assert (nowhere.failure, nowhere.status) == ("no-session-id", 400)


def test_what_the_gateway_does_not_take_for_another_reason_is_told(shared: Daemon) -> None:
    with Herd(shared.gateway) as herd:
        refused = fails(herd_client.RequestRefused, lambda: herd.session().get("/" + "x" * 40_000))
        assert refused.failure in ("header-too-large", "target-too-long")


def test_a_certificate_that_is_not_believed_is_told_and_one_that_is_given_counts(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = f"openssl req -x509 -newkey ed25519 -nodes -keyout {key} -out {certificate} -days 1 -subj /CN=herd"
    command += " -addext subjectAltName=IP:127.0.0.1,DNS:localhost"
    subprocess.run(command.split(), check=True, capture_output=True)
    tls = {"cert_file": str(certificate), "key_file": str(key)}
    with Daemon(network={"tls": tls}) as daemon:
        address = daemon.gateway.replace("http:", "https:")
        with Herd(address) as herd:
            unknown = fails(herd_client.GatewayUnreachable, lambda: herd.session().get("/count"))
            assert "certificate" in unknown.detail.lower(), unknown
        with begun(address, tls=ssl.create_default_context(cafile=str(certificate))) as session:
            assert session.websocket_url("/ws").startswith("wss://127.0.0.1:")


@contextmanager
def serving(answer: bytes) -> Generator[str, None, None]:
    """A server that gives the same answer to everybody, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(PATIENCE)
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield "http://127.0.0.1:%d" % server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)


