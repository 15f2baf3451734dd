"""Where the gateway looks for a session's ID, and how it gets there."""

from __future__ import annotations

import ipaddress
import re
import secrets
from dataclasses import dataclass
from typing import Callable, NoReturn
from urllib.parse import quote

import httpx2

from ._errors import InvalidSession

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A field's or a cookie's name (RFC 9110 section 5.6.2)."""
_SESSION_ID = re.compile(r"[!-~]{1,256}")
_COOKIE_VALUE = re.compile(r'[^",;\\]+')
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""The first label of a host name (RFC 1123 section 2.1), as the gateway reads it."""


@dataclass(frozen=True)
class SessionKey:
    """``header:NAME``, ``cookie:NAME``, ``query:NAME``, ``path:N`` or ``host``."""

    source: str
    name: str = ""
    segment: int = 0

    @classmethod
    def parse(cls, text: str) -> SessionKey:
        """Reads the gateway's ``session_key``. Of several sources, the first is used."""
        source, colon, value = text.split(",", 1)[0].strip().partition(":")
        if source == "host" and not colon:
            return cls("host")
        if source in ("header", "cookie") and _TOKEN.fullmatch(value):
            return cls(source, name=value.lower() if source == "header" else value)
        if source == "query" and value:
            return cls("query", name=value)
        if source == "path" and re.fullmatch(r"[1-9][0-9]{0,2}", value):
            return cls("path", segment=int(value))
        raise ValueError(
            f"session_key: {text!r} is no session key; write header:NAME, cookie:NAME, query:NAME, path:N or host"
        )

    def check(self, session: str) -> None:
        """Raises `InvalidSession` if the text is no session ID, or one that this key cannot carry."""

        def refuse(why: str) -> NoReturn:
            raise InvalidSession(f"{session!r} {why}", session=session)

        if not _SESSION_ID.fullmatch(session):
            refuse("is no session ID: it has to be 1 to 256 bytes of visible ASCII without spaces")
        if self.source == "cookie" and not _COOKIE_VALUE.fullmatch(session):
            refuse("cannot be a cookie: double quotes, commas, semicolons and backslashes may not stand in one")
        if self.source == "path" and session in (".", ".."):
            refuse("cannot be a segment of a path: everybody takes it out")
        if self.source == "host" and not _LABEL.fullmatch(session):
            refuse(
                "cannot be the first label of a host name: that has up to 63 lower-case letters, digits and inner hyphens"
            )

    @property
    def shortest_path(self) -> str:
        """A path with all segments that stand before the session's, for requests that are not about a path."""
        return "/-" * (self.segment - 1) or "/"


@dataclass(frozen=True)
class Gateway:
    """Which gateway, and how it knows its sessions and its callers."""

    url: httpx2.URL
    key: SessionKey
    token: Callable[[], str | None]

    @classmethod
    def parse(cls, address: str, session_key: str, token: str | Callable[[], str] | None) -> Gateway:
        """Checks what a user has given."""
        try:
            url = httpx2.URL(address)
        except httpx2.InvalidURL as error:
            raise ValueError(f"gateway: {address!r} is no address ({error}); write http://HOST:PORT") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"gateway: {address!r} is no address; write http://HOST:PORT or https://HOST:PORT")
        if url.userinfo or url.query or url.fragment:
            raise ValueError("gateway: the address has a user, a query or a fragment; write http://HOST:PORT alone")
        key = SessionKey.parse(session_key)
        if key.source == "host" and _is_ip_address(url.host):
            raise ValueError(f"gateway: the session key host needs a name, and {url.host} is an address")
        return cls(url, key, token if callable(token) else lambda: token)

    @property
    def origin(self) -> str:
        """The address without a path."""
        return f"{self.url.scheme}://{self.url.netloc.decode()}"

    def host_of(self, session: str) -> str:
        """What the field ``host`` says."""
        authority = self.url.netloc.decode()
        return f"{session}.{authority}" if self.key.source == "host" else authority

    def address(self, session: str, path: str, params: httpx2.QueryParams | None = None) -> httpx2.URL:
        """Where a request for this path goes.

        The path cannot lead to another host or, with ``path:N``, to another session: dot segments are resolved before
        the ID is put in.
        """
        if not path.startswith("/"):
            raise ValueError(f"the path {path!r} has to begin with a slash")
        try:
            asked = httpx2.URL(f"http://path.invalid{path}")
        except httpx2.InvalidURL as error:
            raise ValueError(f"the path {path!r} is none: {error}") from error
        target, query = asked.raw_path.split(b"?", 1)[0].decode(), asked.query.decode()
        parts = [query, str(params) if params else ""]
        if self.key.source == "query":
            parts.append(f"{quote(self.key.name, safe='')}={quote(session, safe='')}")
        if self.key.source == "path":
            target = self._with_segment(session, target)
        base = self.url.raw_path.decode().rstrip("/")
        joined = "&".join(part for part in parts if part)
        return self.url.copy_with(raw_path=(base + target + ("?" + joined if joined else "")).encode())

    def shown(self, session: str, path: str) -> httpx2.URL:
        """The address for other clients: with the host that names the session, if that is what the key wants."""
        url = self.address(session, path)
        return url.copy_with(host=f"{session}.{url.host}") if self.key.source == "host" else url

    def _with_segment(self, session: str, path: str) -> str:
        segments = path.split("/")
        number = self.key.segment
        if len(segments) < number or (number > 1 and path == "/"):
            raise ValueError(
                f"the path {path!r} has to have {number - 1} segments before the session's, as path:{number} wants it"
            )
        # The text before the first slash is no segment.
        segments.insert(number, quote(session, safe=""))
        return "/".join(segments)

    def fields(self, session: str) -> dict[str, str]:
        """The fields that every request of the session has."""
        fields: dict[str, str] = {}
        if self.key.source == "header":
            fields[self.key.name] = session
        if self.key.source == "cookie":
            fields["cookie"] = f"{self.key.name}={session}"
        token = self.token()
        if token is not None:
            fields["authorization"] = f"Bearer {token}"
        return fields

    def cookies(self, others: str | None, session: str) -> str | None:
        """The field ``cookie``: with the session's, and with no other one of its name, which a worker may have set."""
        if self.key.source != "cookie":
            return others
        pairs = [pair.strip() for pair in (others or "").split(";")]
        kept = [pair for pair in pairs if pair and pair.split("=", 1)[0].strip() != self.key.name]
        return "; ".join([*kept, f"{self.key.name}={session}"])


def random_id() -> str:
    """128 random bits in hexadecimal digits, which every session key can carry."""
    return secrets.token_hex(16)


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
