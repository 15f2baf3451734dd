/** What works, with a real daemon. */

import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, test } from "node:test";

import { Herd, ResponseBroken, type Session, SessionLost } from "herd-client";

import { Daemon, repl, worker } from "./daemon.js";

let daemon: Daemon;
let herd: Herd;

before(async () => {
  daemon = await Daemon.start(worker);
  herd = new Herd({ gateway: daemon.gateway });
});

after(() => daemon[Symbol.asyncDispose]());

const fieldsOf = async (session: Session, path = "/fields"): Promise<Record<string, string>> =>
  (await (await session.get(path)).json()) as Record<string, string>;

test("a_session_has_one_worker_and_its_state", async () => {
  await using calculators = await Daemon.start(repl);
  const herd = new Herd({ gateway: calculators.gateway });
  await using session = herd.session();
  assert.equal(session.worker, undefined);
  const first = await session.post("/eval", "let x = 41");
  assert.equal(first.headers.get("herd-session"), "new");
  const second = await session.post("/eval", "x + 1");
  assert.equal(await second.text(), "42");
  assert.equal(second.headers.get("herd-session"), "resumed");
  assert.equal(session.worker, (await calculators.workerOf(session.id))?.id);

  await using other = herd.session();
  assert.equal((await other.post("/eval", "x + 1")).status, 422, "a worker's own error is an answer");
  assert.notEqual(other.worker, session.worker);
});

test("leaving_the_block_ends_the_session", async () => {
  let id: string;
  {
    await using session = herd.session();
    id = session.id;
    await session.get("/fields");
    assert((await daemon.sessions()).includes(id));
  }
  assert(!(await daemon.sessions()).includes(id));
  assert.equal(await daemon.workerOf(id), undefined);
});

test("leaving_the_block_by_an_error_ends_the_session_and_keeps_the_error", async () => {
  let id = "";
  const failing = herd.withSession(async (session) => {
    id = session.id;
    await session.get("/fields");
    throw new Error("its own");
  });
  await assert.rejects(failing, /its own/);
  assert(!(await daemon.sessions()).includes(id));
  assert.equal(await herd.withSession((session) => session.id.length), 32);
});

test("a_session_with_a_known_id_is_joined_and_ended_once", async () => {
  const session = herd.session("known");
  const joined = herd.session("known");
  await session.get("/fields");
  await joined.get("/fields");
  assert.equal(joined.worker, session.worker);
  await Promise.all([session.end(), session.end()]);
  await session.end();
  await joined.end();
  assert(!(await daemon.sessions()).includes("known"));
  await herd.session("never-was").end();
});

test("every_method_reaches_the_worker", async () => {
  await using session = herd.session();
  assert.equal(await (await session.get("/method")).text(), "GET");
  assert.equal(await (await session.post("/method")).text(), "POST");
  assert.equal(await (await session.put("/method", "x")).text(), "PUT");
  assert.equal(await (await session.patch("/method", "x")).text(), "PATCH");
  assert.equal(await (await session.delete("/method")).text(), "DELETE");
  assert.equal(await (await session.request("REPORT", "/method")).text(), "REPORT");
  const head = await session.head("/method");
  assert.equal(head.status, 200);
  assert.equal(head.body, null);
  assert((await daemon.sessions()).includes(session.id), "DELETE is for the worker");
});

test("the_callers_fields_reach_the_worker_and_herds_own_do_not", async () => {
  await using session = herd.session("alice");
  for (const _ of ["the first", "a later one"]) {
    const response = await session.post("/fields", "{}", {
      headers: { "content-type": "application/json", "x-session-id": "bob", "herd-session": "end" },
    });
    const fields = (await response.json()) as Record<string, string>;
    assert.equal(fields["content-type"], "application/json");
    assert.equal(fields["x-session-id"], "alice");
    assert.equal(fields["herd-session"], undefined);
  }
});

test("a_worker_is_not_asked_to_compress_unless_the_caller_does", async () => {
  await using session = herd.session();
  assert.equal((await fieldsOf(session))["accept-encoding"], "identity");
  const asked = await session.get("/fields", { headers: { "accept-encoding": "gzip" } });
  assert.equal(((await asked.json()) as Record<string, string>)["accept-encoding"], "gzip");
});

test("the_answer_is_a_response_as_fetch_gives_it", async () => {
  await using session = herd.session();
  const response = await session.get("/teapot");
  assert(response instanceof Response);
  assert.deepEqual(
    [response.status, response.ok, response.statusText, response.type, response.redirected, response.url],
    [418, false, "I'm a teapot", "basic", false, `${daemon.gateway}/teapot`],
  );
  assert.equal(response.headers.get("x-own"), "1");
  const copy = response.clone();
  assert.equal(copy.url, response.url);
  assert.equal(await copy.text(), "short and stout");
  assert.equal(new TextDecoder().decode(await response.arrayBuffer()), "short and stout");
  assert(response.bodyUsed);
});

test("what_a_worker_says_in_the_gateways_name_is_the_workers_answer", async () => {
  await using session = herd.session();
  const response = await session.get("/forged");
  assert.equal(response.status, 502);
  assert.equal(((await response.json()) as { detail: string }).detail, "not so");
  assert.equal((await session.get("/fields")).status, 200, "the session is not taken for lost");
});

test("a_redirection_is_an_answer_and_takes_no_id_elsewhere", async () => {
  await using session = herd.session();
  const response = await session.get("/moved");
  assert.deepEqual([response.status, response.headers.get("location")], [302, "http://127.0.0.1:9/stolen"]);
  for (const redirect of ["follow", "error"]) {
    await assert.rejects(session.get("/moved", { redirect } as unknown as { redirect: "manual" }), TypeError);
  }
});

test("bodies_stream_both_ways", async () => {
  await using session = herd.session();
  const chunk = new Uint8Array(64 * 1024).fill(7);
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let number = 0; number < 64; number += 1) yield chunk;
  }
  const fromIterable = await session.post("/echo", chunks());
  let length = 0;
  for await (const piece of fromIterable.body!) length += piece.byteLength;
  assert.equal(length, 64 * chunk.byteLength);

  const stream = new Blob([chunk, chunk]).stream();
  const fromStream = await session.put("/echo", stream);
  assert.deepEqual(new Uint8Array(await fromStream.arrayBuffer()), new Uint8Array(2 * chunk.byteLength).fill(7));

  // What has come can be read before the rest is there, in pieces of the reader's own size.
  const endless = await session.get("/endless");
  const reader = endless.body!.getReader({ mode: "byob" });
  const { value } = await reader.read(new Uint8Array(3));
  assert.equal(new TextDecoder().decode(value), "beg");
  await reader.cancel();
});

test("a_signal_aborts_a_request_with_its_own_reason", async () => {
  await using session = herd.session();
  await session.get("/fields");
  await assert.rejects(session.get("/silent", { signal: AbortSignal.timeout(100) }), { name: "TimeoutError" });
  const controller = new AbortController();
  const response = await session.get("/endless", { signal: controller.signal });
  const text = response.text();
  controller.abort();
  await assert.rejects(text, { name: "AbortError" });
  assert.equal((await session.get("/fields")).status, 200);
});

test("a_body_that_fails_is_the_callers_own_error", async () => {
  await using session = herd.session();
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(10);
    throw new RangeError("nothing left");
  }
  await assert.rejects(session.post("/echo", failing()), new RangeError("nothing left"));
  await assert.rejects(session.get("/x", { headers: { "a b": "c" } }), TypeError);
  await assert.rejects(session.get("/x", { body: "of a GET" }), TypeError);
});

for (const sessionKey of ["cookie:sid", "query:session", "path:1", "path:2"]) {
  test(`sessions_are_named_and_ended_by_${sessionKey}`, async () => {
    await using daemon = await Daemon.start(worker, { network: { session_key: sessionKey } });
    const herd = new Herd({ gateway: daemon.gateway, sessionKey });
    const id = sessionKey.startsWith("cookie") ? "a%b=c" : "a%b/c?&=";
    await using session = herd.session(id);
    const first = await fieldsOf(session);
    const second = await fieldsOf(session, "/fields?x=1");
    assert.equal(first["x-session-id"], id);
    assert.equal(second["x-session-id"], id);
    assert.match(second["path"] ?? "", /^\/fields\?x=1/);
    assert.deepEqual(await daemon.sessions(), [id]);
    await session.end();
    assert.deepEqual(await daemon.sessions(), []);
  });
}

test("sessions_are_named_and_ended_by_host", async () => {
  await using daemon = await Daemon.start(worker, { network: { session_key: "host" } });
  const { port } = new URL(daemon.gateway);
  // Names below herd.test are known to no resolver.
  const herd = new Herd({ gateway: `http://herd.test:${port}`, sessionKey: "host", fetch: fetchFromLoopback });
  await using session = herd.session();
  assert.equal((await fieldsOf(session))["x-session-id"], session.id);
  assert.deepEqual(await daemon.sessions(), [session.id]);
  await session.end();
  assert.deepEqual(await daemon.sessions(), []);
});

test("a_gateway_behind_a_path_is_asked_below_it", async () => {
  await using daemon = await Daemon.start(worker, {
    network: { session_key: "path:1" },
    pools: { tools: {} },
    routes: [{ path_prefix: "/tools", strip_prefix: true, pool: "tools" }],
  });
  const herd = new Herd({ gateway: `${daemon.gateway}/tools/`, sessionKey: "path:1" });
  await using session = herd.session("alice");
  assert.equal((await fieldsOf(session))["path"], "/fields");
  assert.equal((await daemon.admin("/v1/sessions")).items[0].pool, "tools");
  await session.end();
  assert.deepEqual(await daemon.sessions(), []);
});

test("a_session_in_the_pool_of_its_path_is_explained_and_ended_there", async () => {
  await using daemon = await Daemon.start(worker, {
    pools: { tools: {}, others: {} },
    routes: [{ path_prefix: "/tools", strip_prefix: true, pool: "tools" }, { pool: "others" }],
  });
  await using session = new Herd({ gateway: daemon.gateway }).session();
  const broken = await session.get("/tools/broken");
  await assert.rejects(broken.text(), ResponseBroken);
  assert.equal((await session.get("/tools/fields")).headers.get("herd-pool"), "tools");
  // In the other pool, that would be another session.
  await assert.rejects(session.get("/fields"), SessionLost);

  const another = new Herd({ gateway: daemon.gateway }).session("alice");
  await another.get("/tools/fields");
  await another.end();
  assert(!(await daemon.sessions()).includes("alice"));
});

/** As a program with a proxy or a resolver of its own would do it. */
const fetchFromLoopback: typeof globalThis.fetch = (input, init) =>
  new Promise((resolve, reject) => {
    const url = new URL(String(input));
    const headers = { ...Object.fromEntries(new Headers(init?.headers)), host: url.host };
    const path = url.pathname + url.search;
    request({ host: "127.0.0.1", port: url.port, path, method: init?.method ?? "GET", headers }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk) => chunks.push(chunk));
      answer.on("end", () => {
        const fields = Object.entries(answer.headers).map(([name, value]) => [name, String(value)] as [string, string]);
        const status = answer.statusCode ?? 0;
        resolve(new Response(status === 204 ? null : Buffer.concat(chunks), { status, headers: fields }));
      });
    })
      .on("error", reject)
      .end();
  });
