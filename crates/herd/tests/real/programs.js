// A worker on Node.js: threads, a child process, files, and WebAssembly, behind one page.
const { execFileSync } = require("node:child_process");
const { readFileSync, writeFileSync } = require("node:fs");
const { createServer } = require("node:http");
const { Worker } = require("node:worker_threads");

const inThread = () =>
  new Promise((resolve, reject) => {
    const thread = new Worker("require('node:worker_threads').parentPort.postMessage(6 * 7)", { eval: true });
    thread.once("message", resolve).once("error", reject);
  });

createServer(async (request, response) => {
  if (request.url === "/health") return response.end("ok");
  try {
    writeFileSync("/workspace/file", "from a file");
    const child = execFileSync("echo", ["from a child"], { encoding: "utf8" }).trim();
    await WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]));
    response.end(`${await inThread()}, ${child}, ${readFileSync("/workspace/file", "utf8")}`);
  } catch (error) {
    response.writeHead(500).end(error.stack);
  }
}).listen(process.env.PORT, "127.0.0.1");
