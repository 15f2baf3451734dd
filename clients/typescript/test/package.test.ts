/** The package as others get it, and the examples as others run them. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { Daemon, repl } from "./daemon.js";

const HOME = fileURLToPath(new URL("../../", import.meta.url));

const run = promisify(execFile);

const PROGRAM = `
import { Herd, isHerdError, PoolFull } from "herd-client";
declare const process: { readonly argv: string[] };
await using session = new Herd({ gateway: process.argv[2] }).session();
const answer: Response = await session.post("/eval", "6 * 7");
const installed = import.meta.resolve("herd-client").includes("node_modules");
console.log(await answer.text(), isHerdError(answer), PoolFull.name, installed);
`;

const CONFIGURATION = {
  compilerOptions: { target: "ES2022", module: "NodeNext", lib: ["ES2022", "DOM"], types: [], strict: true },
  include: ["*.ts"],
};

/** The parts of the page that are whole programs. */
async function programsOf(page: string): Promise<string[]> {
  const parts = (await readFile(join(HOME, page), "utf8")).matchAll(/^```ts\n(.*?)^```$/gms);
  return Array.from(parts, (part) => part[1] ?? "");
}

test("the_packed_package_is_installed_imported_and_type_checked_elsewhere_with_what_its_page_says", async () => {
  const directory = await mkdtemp(join(tmpdir(), "herd-client-"));
  try {
    const cwd = directory;
    // Nothing is built and nothing fetched: the package has no dependencies.
    const pack = ["pack", "--ignore-scripts", "--json", "--pack-destination", directory];
    const { stdout } = await run("npm", pack, { cwd: HOME });
    const described = JSON.parse(stdout);
    const [{ filename, files }] = Array.isArray(described) ? described : Object.values(described);
    const paths: string[] = files.map(({ path }: { path: string }) => path);
    for (const path of ["LICENSE", "README.md", "dist/index.js", "dist/index.d.ts", "src/index.ts"]) {
      assert(paths.includes(path), `${path} is not in the package: ${paths.join(", ")}`);
    }
    const expected = /^(LICENSE|README\.md|package\.json|(dist|src)\/[\w.]+)$/;
    assert(paths.every((path) => expected.test(path)), paths.join(", "));

    await writeFile(join(directory, "package.json"), JSON.stringify({ type: "module", private: true }));
    await run("npm", ["install", "--offline", "--no-audit", "--no-fund", join(directory, filename)], { cwd });
    await writeFile(join(directory, "program.ts"), PROGRAM);
    const programs = await programsOf("README.md");
    assert(programs.length >= 3, `${programs.length} programs`);
    for (const [number, program] of programs.entries()) await writeFile(join(directory, `read-${number}.ts`), program);
    await writeFile(join(directory, "tsconfig.json"), JSON.stringify(CONFIGURATION));
    const compiler = join(HOME, "node_modules/typescript/bin/tsc");
    const compiled = run(process.execPath, [compiler, "--project", directory], { cwd });
    await compiled.catch((error) => assert.fail(error.stdout));
    await using daemon = await Daemon.start(repl);
    const said = await run(process.execPath, ["program.js", daemon.gateway], { cwd });
    assert.equal(said.stdout, "42 false PoolFull true\n");
    assert.deepEqual(await daemon.sessions(), []);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

const EXAMPLES = {
  calculator: /^worker-\d+ says 42\n$/,
  errors: /^the sum is 5050\n$/,
  websocket: /^the WebSocket says 42\n$/,
};

for (const [example, expected] of Object.entries(EXAMPLES)) {
  test(`the_example_${example}_does_what_it_says_and_leaves_no_session`, async () => {
    await using daemon = await Daemon.start(repl);
    const env = { ...process.env, HERD_GATEWAY: daemon.gateway };
    const { stdout } = await run(process.execPath, [join(HOME, `build/examples/${example}.js`)], { env });
    assert.match(stdout, expected);
    assert.deepEqual(await daemon.sessions(), []);
  });
}
