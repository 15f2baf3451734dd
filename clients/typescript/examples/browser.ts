/**
 * In a browser: no field can be set on a WebSocket, so the session's ID goes into the address, as the gateway's
 * `session_key: "query:session"` allows, and the token too, if `access.query_parameter` names one.
 */

import { Herd, SessionLost, type AnyHerdError } from "herd-client";

const herd = new Herd({ gateway: location.origin, sessionKey: "query:session" });

export async function show(output: HTMLElement): Promise<void> {
  const session = herd.session();
  addEventListener("pagehide", () => void session.end());
  const socket = new WebSocket(session.websocketUrl("/ws"));
  socket.addEventListener("message", ({ data }) => output.append(String(data)));
  try {
    const response: Response = await session.get("/");
    const reader: ReadableStreamDefaultReader<Uint8Array> | undefined = response.body?.getReader();
    await reader?.cancel();
  } catch (error) {
    if (error instanceof SessionLost) output.textContent = error.remedy;
    else throw error;
  }
}

/** Every error has a code, and no other. */
export function wait(error: AnyHerdError): number {
  switch (error.code) {
    case "pool-full":
    case "too-many-requests":
    case "draining":
      return error.retryAfter ?? 1000;
    case "bad-gateway":
    case "forbidden":
    case "gateway-timeout":
    case "gateway-unreachable":
    case "invalid-session":
    case "request-refused":
    case "response-broken":
    case "session-lost":
    case "session-not-found":
    case "start-failed":
    case "unauthorized":
      return Infinity;
  }
}

// What must not compile.
// @ts-expect-error A redirection could take the session's ID elsewhere.
void herd.session().get("/", { redirect: "follow" });
// @ts-expect-error An option that is none.
void new Herd({ gatway: "http://127.0.0.1:8080" });
// @ts-expect-error The ID never changes.
herd.session().id = "another";
