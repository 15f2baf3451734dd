/**
 * Sessions of a herd gateway on the platform's `fetch`: one session ID, one worker process.
 *
 * @module
 */

export { Herd } from "./herd.js";
export type { HerdOptions } from "./herd.js";
export { Session } from "./session.js";
export type { RequestBody, RequestOptions } from "./session.js";
export {
  BadGateway,
  Draining,
  Forbidden,
  GatewayTimeout,
  GatewayUnreachable,
  HerdError,
  InvalidSession,
  PoolFull,
  RequestRefused,
  ResponseBroken,
  SessionLost,
  SessionNotFound,
  StartFailed,
  TooManyRequests,
  Unauthorized,
  isHerdError,
} from "./errors.js";
export type { AnyHerdError, ErrorCode, Problem } from "./errors.js";
