/** What other clients need: the address and the fields. This one is `ws` from npm. */

import { once } from "node:events";

import { Herd } from "herd-client";
import { WebSocket } from "ws";

const herd = new Herd({ gateway: process.env["HERD_GATEWAY"] });

await using session = herd.session();
const socket = new WebSocket(session.websocketUrl("/ws"), { headers: session.headers });
await once(socket, "open");
socket.send("6 * 7");
const [answer] = await once(socket, "message");
console.log(`the WebSocket says ${String(answer)}`);
socket.close();
