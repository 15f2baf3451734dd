/** A WebSocket library with the fields and the address that a session gives it. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";

import { Herd, type Session } from "herd-client";
import { WebSocket } from "ws";

import { Daemon, repl } from "./daemon.js";

async function ask(socket: WebSocket, script: string): Promise<string> {
  socket.send(script);
  const [message] = await once(socket, "message");
  return String(message);
}

async function connect(session: Session): Promise<WebSocket> {
  const socket = new WebSocket(session.websocketUrl("/ws"), { headers: session.headers });
  await once(socket, "open");
  return socket;
}

for (const sessionKey of ["header:X-Session-ID", "cookie:sid", "query:session", "path:1"]) {
  test(`a_websocket_is_in_the_session_by_${sessionKey}`, async () => {
    await using daemon = await Daemon.start(repl, { network: { session_key: sessionKey } });
    const herd = new Herd({ gateway: daemon.gateway, sessionKey });
    await using session = herd.session();
    await session.post("/eval", "let x = 41");
    const socket = await connect(session);
    assert.equal(await ask(socket, "x + 1"), "42");
    const closed = once(socket, "close");
    await session.end();
    const [code, reason] = await closed;
    assert.deepEqual([code, String(reason)], [4000, "released"]);
  });
}

test("a_websocket_may_begin_the_session_and_starts_no_second_one", async () => {
  await using daemon = await Daemon.start(repl);
  await using session = new Herd({ gateway: daemon.gateway }).session();
  const socket = await connect(session);
  await ask(socket, "let x = 1");
  assert.equal(await (await session.post("/eval", "x")).text(), "1");
  // From the first answer on, a WebSocket is for this session alone.
  assert.equal(session.headers["herd-session"], "resume");
  socket.close();
  await once(socket, "close");
  await daemon.admin(`/v1/sessions/${session.id}`, { method: "DELETE" });
  const late = new WebSocket(session.websocketUrl("/ws"), { headers: session.headers });
  const [error] = await once(late, "error");
  assert.match(String(error), /404/);
  assert.deepEqual(await daemon.sessions(), []);
});
