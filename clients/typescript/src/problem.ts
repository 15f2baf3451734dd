import {
  BadGateway,
  Draining,
  Forbidden,
  GatewayTimeout,
  type ErrorDetails,
  type HerdError,
  InvalidSession,
  PoolFull,
  type Problem,
  RequestRefused,
  SessionLost,
  SessionNotFound,
  StartFailed,
  TooManyRequests,
  Unauthorized,
} from "./errors.js";

/** In every answer of the gateway's own, which takes this field out of what workers answer: none can pass for it. */
const HERD_ERROR = "herd-error";

/** In an answer of a worker, and of nobody else. */
export const HERD_WORKER = "herd-worker";

/** More than any problem of the gateway has; what is longer came from somewhere else. */
const MAX_PROBLEM_BYTES = 16 * 1024;

/** What the admin API alone says of requests that were meant for the gateway. */
const OF_ADMIN: ReadonlySet<string> = new Set([
  "bad-token",
  "foreign-host",
  "foreign-origin",
  "method-not-allowed",
  "no-such-page",
  "no-token",
]);

type ErrorType = new (details: ErrorDetails) => HerdError;

const BY_FAILURE: ReadonlyMap<string, ErrorType> = new Map<string, ErrorType>([
  ["no-session-id", InvalidSession],
  ["invalid-session-id", InvalidSession],
  ["no-such-session", SessionNotFound],
  ["tenant-sessions", TooManyRequests],
  ["tenant-waiting", TooManyRequests],
  ["queue-full", PoolFull],
  ["acquire-timeout", PoolFull],
  ["no-worker", PoolFull],
  ["spawn-failed", StartFailed],
  ["draining", Draining],
  ["shutdown", Draining],
  ["worker-crashed", SessionLost],
  ["session-ended", SessionLost],
  ["worker-unreachable", BadGateway],
  ["bad-gateway", BadGateway],
]);

/** For names that a later gateway may have. */
const BY_STATUS: ReadonlyMap<number, ErrorType> = new Map<number, ErrorType>([
  [401, Unauthorized],
  [403, Forbidden],
  [429, TooManyRequests],
  [504, GatewayTimeout],
]);

/** Whether the gateway itself answered, and not a worker. */
export function isProblem(response: Response): boolean {
  return response.headers.has(HERD_ERROR);
}

/** The error that the gateway's answer tells of. Reads its body. */
export async function errorOf(response: Response, session: string): Promise<HerdError> {
  const { status } = response;
  const failure = response.headers.get(HERD_ERROR) ?? "";
  const problem = parse(await beginning(response));
  const ErrorType = BY_FAILURE.get(failure) ?? BY_STATUS.get(status) ?? RequestRefused;
  return new ErrorType({
    detail: problem?.detail ?? `herd's gateway answered ${status} ${failure}`,
    failure,
    status,
    problem,
    retryAfter: retryAfter(response),
    session: problem?.session ?? session,
  });
}

/** Whether herd's admin address answered: with its dashboard, or with a problem of its API. Reads or cancels the body. */
export async function isAdmin(answer: Response): Promise<boolean> {
  const kind = answer.headers.get("content-type")?.split(";")[0];
  if (answer.headers.has(HERD_WORKER) || (kind !== "application/problem+json" && kind !== "text/html")) {
    await answer.body?.cancel();
    return false;
  }
  const text = await beginning(answer);
  const problem = parse(text);
  if (problem === undefined) return text.includes("<title>herd</title>");
  return OF_ADMIN.has(problem.type.replace("urn:herd:problem:", ""));
}

/** The body, or nothing if it is too long or breaks off: the answer's fields say enough. */
async function beginning(response: Response): Promise<string> {
  const reader = response.body?.getReader();
  if (reader === undefined) return "";
  const decoder = new TextDecoder();
  let text = "";
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return text + decoder.decode();
      length += value.byteLength;
      if (length > MAX_PROBLEM_BYTES) {
        await reader.cancel();
        return "";
      }
      text += decoder.decode(value, { stream: true });
    }
  } catch {
    return "";
  }
}

function parse(text: string): Problem | undefined {
  let document: Record<string, unknown>;
  try {
    document = JSON.parse(text) as Record<string, unknown>;
  } catch {
    return undefined;
  }
  if (typeof document !== "object" || document === null) return undefined;
  const { type, title, status, detail, session } = document;
  if (typeof type !== "string" || typeof title !== "string") return undefined;
  if (typeof status !== "number" || typeof detail !== "string") return undefined;
  return { type, title, status, detail, ...(typeof session === "string" ? { session } : {}) };
}

/** Milliseconds. The gateway writes whole seconds, and no date (RFC 9110 §10.2.3). */
function retryAfter(response: Response): number | undefined {
  const field = response.headers.get("retry-after");
  return field !== null && /^\d{1,9}$/.test(field) ? Number(field) * 1000 : undefined;
}
