/** What can be sent piece by piece. */
export type Stream = ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>;

export function isStream(body: unknown): body is Stream {
  return typeof body === "object" && body !== null && (body instanceof ReadableStream || Symbol.asyncIterator in body);
}

/** A request's body that remembers whether it failed itself: then the fault is not the gateway's. */
export class Upload {
  /** What the body failed with, if it did. */
  failure: { readonly error: unknown } | undefined;
  readonly stream: ReadableStream<Uint8Array>;
  readonly #chunks: Chunks;

  constructor(source: Stream) {
    const chunks = chunksOf(source);
    this.#chunks = chunks;
    this.stream = new ReadableStream(
      {
        pull: async (controller) => {
          try {
            const chunk = await chunks.next();
            if (chunk === undefined) controller.close();
            else controller.enqueue(chunk);
          } catch (error) {
            this.failure = { error };
            throw error;
          }
        },
        cancel: (reason) => chunks.cancel(reason),
      },
      { highWaterMark: 0 },
    );
  }

  /** Lets go of the source: nobody will read the rest. Not every runtime cancels what it sends when it is refused. */
  abandon(reason: unknown): void {
    this.#chunks.cancel(reason).catch(() => undefined);
  }
}

interface Chunks {
  /** The next one, or nothing at the end. */
  next(): Promise<Uint8Array | undefined>;
  cancel(reason: unknown): Promise<void>;
}

/** Not every runtime that has streams can iterate over them. */
function chunksOf(source: Stream): Chunks {
  if (source instanceof ReadableStream) {
    const reader = source.getReader();
    return { next: async () => (await reader.read()).value, cancel: (reason) => reader.cancel(reason) };
  }
  const iterator = source[Symbol.asyncIterator]();
  return {
    next: async () => {
      const { done, value } = await iterator.next();
      return done === true ? undefined : value;
    },
    cancel: async () => {
      await iterator.return?.();
    },
  };
}

/** The same answer; if its body breaks off, whoever reads it gets the error that `explain` makes of the cause. */
export function explained(response: Response, explain: (cause: unknown) => Promise<unknown>): Response {
  // What has no body, or a status that no constructor takes, stays as it is.
  const { body, headers, status, statusText, redirected, type, url } = response;
  if (body === null || status < 200 || status > 599) return response;
  const wrapped = new Response(download(response, explain), { headers, status, statusText });
  return dressed(wrapped, { redirected, type, url });
}

/** A constructed response knows nothing of where it came from. */
function dressed(response: Response, origin: Pick<Response, "redirected" | "type" | "url">): Response {
  const { clone } = Response.prototype;
  return Object.defineProperties(response, {
    redirected: { value: origin.redirected },
    type: { value: origin.type },
    url: { value: origin.url },
    clone: { value: () => dressed(clone.call(response), origin) },
  });
}

/**
 * It begins to read when it is read, and holds the whole answer: if nobody reads it, the runtime sees that, and lets go
 * of the connection.
 */
function download(response: Response, explain: (cause: unknown) => Promise<unknown>): ReadableStream {
  let reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | undefined;
  const opened = (): typeof reader & {} => (reader ??= (response.body as NonNullable<Response["body"]>).getReader());
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      try {
        for (;;) {
          const { done, value } = await opened().read();
          if (done) {
            controller.close();
            controller.byobRequest?.respond(0);
            return;
          }
          // A stream of bytes takes no empty chunk, and wants something of each pull.
          if (value.byteLength > 0) {
            controller.enqueue(value);
            return;
          }
        }
      } catch (cause) {
        throw await explain(cause);
      }
    },
    cancel: (reason) => opened().cancel(reason),
  });
}
