import { InvalidSession } from "./errors.js";

/** Where the gateway looks for a session's ID. Of several sources, the first is used. */
export type SessionKey =
  | { readonly source: "header"; readonly name: string }
  | { readonly source: "cookie"; readonly name: string }
  | { readonly source: "query"; readonly name: string }
  | { readonly source: "path"; readonly segment: number }
  | { readonly source: "host" };

/** A field's or cookie's name (RFC 9110 §5.6.2). */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** 1 to 256 bytes of visible ASCII without spaces: what the gateway takes for an ID. */
const SESSION_ID = /^[!-~]{1,256}$/;

/** What a cookie's value may hold (RFC 6265 §4.1.1). */
const COOKIE_VALUE = /^[^",;\\]+$/;

/** What the first label of a host name may be (RFC 1123 §2.1); the gateway reads it in lower case. */
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/**
 * Reads `header:NAME`, `cookie:NAME`, `query:NAME`, `path:N` or `host`, as the gateway's `session_key` has it.
 *
 * @throws {TypeError} If it is none of these.
 */
export function parseSessionKey(text: string): SessionKey {
  const first = text.split(",", 1)[0]?.trim() ?? "";
  const colon = first.indexOf(":");
  const [kind, value] = colon < 0 ? [first, ""] : [first.slice(0, colon), first.slice(colon + 1)];
  if (kind === "host" && colon < 0) return { source: "host" };
  if ((kind === "header" || kind === "cookie") && TOKEN.test(value)) return { source: kind, name: value };
  if (kind === "query" && value !== "") return { source: "query", name: value };
  if (kind === "path" && /^[1-9]\d{0,2}$/.test(value)) return { source: "path", segment: Number(value) };
  throw new TypeError(
    `sessionKey: ${JSON.stringify(text)} is no session key; write header:NAME, cookie:NAME, query:NAME, path:N or host`,
  );
}

/**
 * Makes an ID of 128 random bits in hexadecimal digits, which every session key can carry.
 */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @throws {InvalidSession} If `id` is no session ID, or this key cannot carry it.
 */
export function checkId(key: SessionKey, id: string): void {
  const refuse = (why: string): never => {
    throw new InvalidSession({ detail: `${JSON.stringify(id)} ${why}`, failure: undefined, session: id });
  };
  if (typeof id !== "string" || !SESSION_ID.test(id)) {
    refuse("is no session ID: it has to be 1 to 256 bytes of visible ASCII without spaces");
  }
  if (key.source === "cookie" && !COOKIE_VALUE.test(id)) {
    refuse('cannot be a cookie: double quotes, commas, semicolons and backslashes may not stand in one');
  }
  if (key.source === "path" && (id === "." || id === "..")) {
    refuse("cannot be a segment of a path: everybody takes it out");
  }
  if (key.source === "host" && !LABEL.test(id)) {
    refuse("cannot be the first label of a host name: that has up to 63 lower-case letters, digits and inner hyphens");
  }
}

/** A path that has all segments that the key needs before its own, for requests that are not about a path. */
export function shortestPath(key: SessionKey): string {
  return key.source === "path" ? "/-".repeat(key.segment - 1) || "/" : "/";
}

/**
 * The address of `path` in the session.
 *
 * `path` cannot lead to another host or, with `path:N`, to another session: dot segments are resolved before the ID is
 * put in.
 *
 * @throws {TypeError} If `path` does not begin with a slash, or is too short for `path:N`.
 */
export function address(gateway: URL, key: SessionKey, id: string, path: string): URL {
  if (!path.startsWith("/")) {
    throw new TypeError(`the path ${JSON.stringify(path)} has to begin with a slash`);
  }
  const asked = new URL(`http://path.invalid${path}`);
  const base = gateway.pathname.replace(/\/+$/, "");
  const url = new URL(gateway.href);
  url.pathname = base + pathWith(key, id, asked.pathname);
  url.search = asked.search;
  if (key.source === "query") {
    const parameter = `${encodeURIComponent(key.name)}=${encodeURIComponent(id)}`;
    url.search = asked.search === "" ? parameter : `${asked.search}&${parameter}`;
  }
  if (key.source === "host") {
    url.hostname = `${id}.${gateway.hostname}`;
  }
  return url;
}

function pathWith(key: SessionKey, id: string, path: string): string {
  if (key.source !== "path") return path;
  const segments = path.split("/");
  if (segments.length < key.segment || (key.segment > 1 && path === "/")) {
    const wanted = `${key.segment - 1} segments before the session's, as path:${key.segment} wants it`;
    throw new TypeError(`the path ${JSON.stringify(path)} has to have ${wanted}`);
  }
  // The text before the first slash is not a segment.
  segments.splice(key.segment, 0, encodeURIComponent(id));
  return segments.join("/");
}

/** Puts the ID into the fields, if that is where the key has it. */
export function addKey(headers: Headers, key: SessionKey, id: string): void {
  if (key.source === "header") headers.set(key.name, id);
  if (key.source === "cookie") {
    const others = headers.get("cookie");
    headers.set("cookie", others === null ? `${key.name}=${id}` : `${others}; ${key.name}=${id}`);
  }
}
