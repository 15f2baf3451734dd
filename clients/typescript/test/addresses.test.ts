/** What is found out before anything is sent. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Herd, HerdError, InvalidSession, isHerdError } from "herd-client";

const at = (sessionKey: string, id?: string, gateway = "http://herd.example:8080") =>
  new Herd({ gateway, sessionKey }).session(id);

test("each_session_has_another_id_of_128_random_bits", () => {
  const herd = new Herd();
  const ids = new Set(Array.from({ length: 100 }, () => herd.session().id));
  assert.equal(ids.size, 100);
  for (const id of ids) assert.match(id, /^[0-9a-f]{32}$/);
});

test("a_header_names_the_session", () => {
  const session = at("header:X-Session-ID", "alice");
  assert.deepEqual(session.headers, { "x-session-id": "alice" });
  assert.equal(session.url("/a%20b/?q=%C3%BC&r=a+b#part"), "http://herd.example:8080/a%20b/?q=%C3%BC&r=a+b");
  assert.equal(session.websocketUrl("/ws"), "ws://herd.example:8080/ws");
  assert.equal(at("header:X-Session-ID", "alice", "https://herd.example").websocketUrl("/ws"), "wss://herd.example/ws");
});

test("a_cookie_names_the_session", () => {
  assert.deepEqual(at("cookie:sid", "alice").headers, { cookie: "sid=alice" });
});

test("a_parameter_of_the_query_names_the_session", () => {
  const session = at("query:session id", "a&b=c%");
  assert.deepEqual(session.headers, {});
  assert.equal(session.url("/x"), "http://herd.example:8080/x?session%20id=a%26b%3Dc%25");
  assert.equal(session.url("/x?y=1+2"), "http://herd.example:8080/x?y=1+2&session%20id=a%26b%3Dc%25");
  assert.equal(session.websocketUrl("/ws?y"), "ws://herd.example:8080/ws?y&session%20id=a%26b%3Dc%25");
});

test("a_segment_of_the_path_names_the_session", () => {
  assert.equal(at("path:1", "a/b?").url("/x/y?z"), "http://herd.example:8080/a%2Fb%3F/x/y?z");
  assert.equal(at("path:1", "alice").url("/"), "http://herd.example:8080/alice/");
  assert.equal(at("path:2", "alice").url("/api/x"), "http://herd.example:8080/api/alice/x");
  assert.equal(at("path:2", "alice").url("/api"), "http://herd.example:8080/api/alice");
  assert.throws(() => at("path:2", "alice").url("/"), /has to have 1 segments before the session's/);
  assert.throws(() => at("path:3", "alice").url("/api"), /has to have 2 segments before the session's/);
});

test("a_host_name_names_the_session", () => {
  assert.equal(at("host", "alice-1").url("/x"), "http://alice-1.herd.example:8080/x");
  for (const id of ["Alice", "a.b", "-a", "a".repeat(64)]) assert.throws(() => at("host", id), InvalidSession);
  for (const gateway of ["http://127.0.0.1:8080", "http://[::1]:8080"]) {
    assert.throws(() => new Herd({ gateway, sessionKey: "host" }), /is an address/);
  }
});

test("no_path_leads_to_another_session_or_host", () => {
  const session = at("path:1", "alice");
  for (const path of ["/../bob/x", "/%2e%2e/bob/x", "/./../bob/x", "/..\\bob/x"]) {
    assert.equal(session.url(path), "http://herd.example:8080/alice/bob/x", path);
  }
  const hosts = ["//evil.example/x", "/@evil.example/", "/\\evil.example/x", "/:80@evil.example"];
  for (const path of hosts) {
    assert.equal(new URL(at("header:x", "alice").url(path)).host, "herd.example:8080", path);
    assert.equal(new URL(session.url(path)).host, "herd.example:8080", path);
    assert.match(new URL(session.url(path)).pathname, /^\/alice\//, path);
  }
  const prefixed = at("header:x", "alice", "http://herd.example:8080/tools/");
  assert.equal(prefixed.url("/../admin"), "http://herd.example:8080/tools/admin");
  for (const path of ["x", "", "http://evil.example/", "?x"]) {
    assert.throws(() => session.url(path), /has to begin with a slash/, path);
  }
});

test("the_first_of_several_keys_is_used", () => {
  assert.deepEqual(at("header:X-One, cookie:two", "alice").headers, { "x-one": "alice" });
});

test("an_id_that_cannot_be_one_is_refused_at_once", () => {
  for (const id of ["", "a b", "ü", "a\n", "a".repeat(257)]) {
    assert.throws(() => at("header:X-Session-ID", id), InvalidSession, JSON.stringify(id));
  }
  at("header:X-Session-ID", "a".repeat(256));
  for (const id of ["a;b", 'a"', "a,b", "a\\b"]) assert.throws(() => at("cookie:sid", id), InvalidSession, id);
  for (const id of [".", ".."]) assert.throws(() => at("path:1", id), InvalidSession, id);
  try {
    at("header:X-Session-ID", "a b");
  } catch (error) {
    assert(error instanceof InvalidSession && error instanceof HerdError && isHerdError(error));
    assert.equal(error.code, "invalid-session");
    assert.equal(error.name, "InvalidSession");
    assert.equal(error.status, undefined);
    assert.equal(error.session, "a b");
    assert.match(error.message, /"a b" is no session ID.*\(check the ID, and that sessionKey/);
  }
});

test("an_option_that_is_none_says_what_to_write", () => {
  assert.throws(() => new Herd({ gateway: "herd.example" }), /gateway: "herd.example" is no address; write http:/);
  assert.throws(() => new Herd({ gateway: "ftp://herd.example" }), /ftp: is not spoken/);
  assert.throws(() => new Herd({ gateway: "http://u:p@herd.example" }), /herd knows tokens alone/);
  assert.throws(() => new Herd({ gateway: "http://herd.example/?x" }), /has a query or a fragment/);
  for (const sessionKey of ["", "heder:X", "header:", "header:a b", "query:", "path:0", "path:x", "cookie", "host:x"]) {
    assert.throws(() => new Herd({ sessionKey }), /is no session key; write header:NAME/, sessionKey);
  }
});

test("a_function_gives_each_request_the_token_of_now", () => {
  let token = "one";
  const session = new Herd({ token: () => token }).session("alice");
  assert.equal(session.headers["authorization"], "Bearer one");
  token = "two";
  assert.equal(session.headers["authorization"], "Bearer two");
  assert.doesNotMatch(session.url("/x"), /two/);
});

test("a_token_that_no_field_can_carry_is_not_shown", () => {
  for (const token of ["", "secret\n", "secret secret", "secr\u00e9t"]) {
    for (const given of [token, () => token]) {
      assert.throws(
        () => new Herd({ token: given }).session().headers,
        (error) => error instanceof TypeError && error.message.startsWith("token: ") && !error.message.includes("secr"),
      );
    }
  }
});

test("nothing_that_is_no_error_of_herd_passes_for_one", () => {
  for (const other of [undefined, null, "session-lost", new Error("no"), { code: "session-lost" }]) {
    assert(!isHerdError(other));
  }
});
