/** What a program may do about each error. */

import { setTimeout } from "node:timers/promises";

import { Herd, isHerdError, type Session } from "herd-client";

const herd = new Herd({ gateway: process.env["HERD_GATEWAY"], token: process.env["HERD_TOKEN"] });

/** Does `work` in a session; begins again if the session is lost, and waits if there is no place for one. */
async function persistently<T>(work: (session: Session) => Promise<T>, tries = 5): Promise<T> {
  for (let left = tries; ; left -= 1) {
    try {
      return await herd.withSession(work);
    } catch (error) {
      if (!isHerdError(error) || left <= 1) throw error;
      switch (error.code) {
        case "session-lost":
          console.error(`begins again: ${error.message}`);
          break;
        case "pool-full":
        case "too-many-requests":
        case "draining":
          await setTimeout(error.retryAfter ?? 1000);
          break;
        default:
          throw error;
      }
    }
  }
}

const sum = await persistently(async (session) => {
  await session.post("/eval", "let sum = 0; for n in 1..=100 { sum += n }");
  const answer = await session.post("/eval", "sum");
  if (!answer.ok) throw new Error(`the worker says: ${await answer.text()}`);
  return await answer.text();
});
console.log(`the sum is ${sum}`);
