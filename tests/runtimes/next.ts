// Next.js middleware, which runs in its edge runtime: the package condition `edge-light`.

import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { freePort } from "./browsers.js";
import { run as execute, MODULES, project, start, versionOf } from "./project.js";
import { outcomeOf, suiteFiles, type Trial } from "./trial.js";

const FILES = {
  "app/layout.js": "export default ({ children }) => <html><body>{children}</body></html>;\n",
  "app/page.js": "export default () => <p>batchnorm-wasm</p>;\n",
  "middleware.js": `import { run } from "./run.js";

export async function middleware() {
  return Response.json(await run());
}

export const config = { matcher: "/conformance" };
`,
  // next itself is not installed into the project but linked, from outside of it.
  "next.config.js": `export default { turbopack: { root: "/" } };\n`,
};

const NEXT = join(MODULES, "next/dist/bin/next");
const ENV = { NEXT_TELEMETRY_DISABLED: "1", CI: "1" };

const middleware = (bundler: string, args: readonly string[]): Trial => ({
  name: `Next.js middleware, ${bundler}`,
  tags: ["bundlers", "next"],
  async run(run) {
    const folder = await project(`next-${bundler}`, { ...suiteFiles(run), ...FILES });
    for (const name of ["next", "react", "react-dom"]) {
      await symlink(join(MODULES, name), join(folder, "node_modules", name));
    }
    await execute(process.execPath, [NEXT, "build", ...args], { cwd: folder, env: ENV });
    const port = await freePort();
    const server = start(process.execPath, [NEXT, "start", "-H", "127.0.0.1", "-p", `${port}`], {
      cwd: folder,
      env: { ...process.env, ...ENV },
      stdio: "ignore",
    });
    try {
      const outcome = outcomeOf(
        await (await patiently(`http://127.0.0.1:${port}/conformance`)).json(),
      );
      return { version: await versionOf("next"), outcome };
    } finally {
      server.kill();
    }
  },
});

/** What an address answers, once its server listens. */
async function patiently(address: string): Promise<Response> {
  for (let tries = 0; ; tries++) {
    try {
      return await fetch(address);
    } catch (error) {
      if (tries === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

export const NEXT_BUILDS: readonly Trial[] = [
  middleware("Turbopack", []),
  middleware("webpack", ["--webpack"]),
];
