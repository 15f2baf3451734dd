/** A real `herd`, on ports of its own; its program is in the variable HERD. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const WORKER = fileURLToPath(new URL("worker.js", import.meta.url));

/** A worker that is ready and does what tests ask for. The tests may lie where a sandboxed worker sees nothing. */
export const worker = ["node", "{{worker}}"];

export const repl = ["{{herd}}", "repl"];

export class Daemon {
  readonly gateway: string;
  readonly adminAddress: string;
  readonly #child: ChildProcess;
  readonly #directory: string;

  private constructor(addresses: { gateway: string; admin: string }, child: ChildProcess, directory: string) {
    this.gateway = `http://${addresses.gateway}`;
    this.adminAddress = `http://${addresses.admin}`;
    this.#child = child;
    this.#directory = directory;
  }

  /** `herd serve` with this configuration, which is JSON, and so YAML. If it has `pools`, all of them are alike. */
  static async start(command: readonly string[], sections: Record<string, object> = {}): Promise<Daemon> {
    const herd = process.env["HERD"];
    if (herd === undefined) throw new Error("HERD is not set; give it the path of the program herd");
    const directory = await mkdtemp(join(tmpdir(), "herd-client-"));
    const words = command.map((word) => word.replace("{{worker}}", WORKER).replace("{{herd}}", herd));
    const { worker, resources, pools, ...others } = sections;
    const pool = {
      worker: { command: words, ...worker },
      resources: { min_workers: 0, max_workers: 4, spare: 0, ...resources },
      // What is tested is the client, and a worker of its tests lies anywhere.
      sandbox: { mode: "off" },
    };
    const named = Object.fromEntries(Object.keys(pools ?? {}).map((name) => [name, pool]));
    const configuration = { ...others, ...(pools === undefined ? pool : { pools: named }) };
    const file = join(directory, "herd.yaml");
    await writeFile(file, JSON.stringify(configuration));
    const listeners = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    const flags = ["--log-format", "json", "--control-socket", join(directory, "herd.sock")];
    const child = spawn(herd, ["serve", "--config", file, ...listeners, ...flags], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    const addresses = await served(child).catch(async (error: unknown) => {
      await rm(directory, { recursive: true, force: true });
      throw error;
    });
    return new Daemon(addresses, child, directory);
  }

  /** What the admin API answers, in JSON if there is any. */
  async admin(path: string, init?: RequestInit): Promise<any> {
    const response = await fetch(this.adminAddress + path, init);
    const text = await response.text();
    if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`);
    return text === "" ? undefined : JSON.parse(text);
  }

  /** The session's worker and the process ID of it. */
  async workerOf(session: string): Promise<{ id: string; pid: number } | undefined> {
    const workers = await this.admin("/v1/workers");
    return workers.items.find((item: { session: string | null }) => item.session === session);
  }

  async sessions(): Promise<string[]> {
    const sessions = await this.admin("/v1/sessions");
    return sessions.items.map((item: { id: string }) => item.id);
  }

  /** `kill -9` of the session's worker. */
  async crash(session: string): Promise<void> {
    const worker = await this.workerOf(session);
    if (worker === undefined) throw new Error(`${session} has no worker`);
    process.kill(worker.pid, "SIGKILL");
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Resolves when the daemon has ended. */
  async ended(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, "exit");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.signal("SIGKILL");
    await this.ended();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** Reads the daemon's log until it says where it serves, and goes on, so that the daemon never waits for its reader. */
function served(child: ChildProcess): Promise<{ gateway: string; admin: string }> {
  return new Promise((resolve, reject) => {
    const said: string[] = [];
    child.once("error", reject);
    child.once("exit", () => reject(new Error(`herd ended at once:\n${said.join("\n")}`)));
    createInterface({ input: child.stderr! }).on("line", (line) => {
      if (process.env["HERD_TEST_LOG"] !== undefined) console.error(line);
      said.push(line);
      let event: { message?: string; gateway: string; admin: string };
      try {
        event = JSON.parse(line);
      } catch {
        return;
      }
      if (event.message === "serving") resolve(event);
    });
  });
}
