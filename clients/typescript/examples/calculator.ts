/** A session of the built-in REPL: `herd` and nothing else is its daemon. */

import { Herd } from "herd-client";

const herd = new Herd({ gateway: process.env["HERD_GATEWAY"] });

await using session = herd.session();
await session.post("/eval", "let x = 41");
const answer = await session.post("/eval", "x + 1");
console.log(`${session.worker} says ${await answer.text()}`);
