/** A worker that does what the tests ask for. */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

const PAGES: Record<string, (request: IncomingMessage, response: ServerResponse) => void> = {
  "/health": (_, response) => void response.end("ok"),
  "/fields": (request, response) => void response.end(JSON.stringify({ path: request.url, ...request.headers })),
  "/echo": (request, response) => void request.pipe(response),
  "/method": (request, response) => void response.end(request.method),
  /** Begins to answer, and never ends. */
  "/endless": (_, response) => void response.write("begun\n"),
  /** Breaks off, and lives on. */
  "/broken": (_, response) => void response.write("begun\n", () => response.destroy()),
  "/silent": () => undefined,
  "/teapot": (_, response) => void response.writeHead(418, "Teapot", { "x-own": "1" }).end("short and stout"),
  "/moved": (_, response) => void response.writeHead(302, { location: "http://127.0.0.1:9/stolen" }).end(),
  /** Pretends that the gateway says so. */
  "/forged": (_, response) => {
    const fields = { "content-type": "application/problem+json", "herd-error": "worker-crashed", "herd-worker": "x" };
    const type = "urn:herd:problem:worker-crashed";
    const problem = { type, title: "Bad Gateway", status: 502, detail: "not so" };
    response.writeHead(502, fields).end(JSON.stringify(problem));
  },
};

createServer((request, response) => {
  const page = PAGES[new URL(request.url ?? "/", "http://worker.invalid").pathname];
  if (page === undefined) response.writeHead(404).end("no such page");
  else page(request, response);
}).listen(Number(process.env["PORT"]), "127.0.0.1");
