// Cloudflare's workerd: a worker's files as they are, served over HTTP.

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { extname, join } from "node:path";
import { WebSocket } from "ws";
import { freePort } from "./browsers.js";
import { start, write } from "./project.js";

/** The binary for this platform; the package has no types. */
const { default: PROGRAM } = createRequire(import.meta.url)("workerd") as { default: string };

export interface Worker {
  fetch(path: string, init?: RequestInit): Promise<Response>;
  /** What a path answers; throws, with what workerd said, if that is an error. */
  json(path: string): Promise<unknown>;
  /** Resident memory of the process in bytes. */
  resident(): Promise<number>;
  /** Used heap and array buffers of the worker in bytes; `measured` workers only. */
  heap(): Promise<number>;
  close(): void;
}

/** What a .js or .wasm file is to workerd. */
const KINDS: Record<string, string> = {
  ".js": "esModule",
  ".mjs": "esModule",
  ".wasm": "wasm",
  ".json": "json",
};

/** What workerd is to run. */
function configOf(modules: Record<string, string>, measured: boolean): string {
  const list = Object.entries(modules)
    .map(([name, file]) => `(name = "${name}", ${KINDS[extname(file)]} = embed "${file}")`)
    .join(",\n    ");
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  v8Flags = [${measured ? '"--expose-gc"' : ""}],
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  compatibilityDate = "2026-01-01",
  modules = [
    ${list}
  ],
);
`;
}

/**
 * Names of modules, and their files, relative to `folder`; the first is the worker. A `measured`
 * worker has a global gc(), and its heap can be asked for.
 */
export async function startWorker(
  folder: string,
  modules: Record<string, string>,
  { measured = false } = {},
): Promise<Worker> {
  await write(folder, { "worker.capnp": configOf(modules, measured) });
  const inspector = measured ? `127.0.0.1:${await freePort()}` : null;
  const flags = inspector === null ? [] : [`--inspector-addr=${inspector}`];
  const child = start(
    PROGRAM,
    ["serve", join(folder, "worker.capnp"), "--control-fd=3", ...flags],
    {
      stdio: ["ignore", "ignore", "pipe", "pipe"],
    },
  );
  let said = "";
  child.stderr!.on("data", (data) => {
    said += data;
  });
  const port = await portOf(child, () => said);
  const { pid } = child;
  const get = (path: string, init?: RequestInit): Promise<Response> =>
    fetch(`http://127.0.0.1:${port}${path}`, init);
  return {
    fetch: get,
    async json(path) {
      const response = await get(path);
      if (!response.ok) throw new Error(`workerd: ${await response.text()}: ${said}`);
      return response.json();
    },
    resident: () => residentOf(pid!),
    heap: () => heapOf(`ws://${inspector}/main`),
    close: () => void child.kill(),
  };
}

/** The port that workerd says it listens on; throws with what it says if it ends before. */
function portOf(child: ChildProcess, said: () => string): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`workerd ended with ${code}: ${said()}`)));
    child.stdio[3]!.on("data", (data) => {
      for (const line of String(data).trim().split("\n")) {
        const { event, port } = JSON.parse(line) as { event: string; port?: number };
        if (event === "listen" && port) resolve(port);
      }
    });
  });
}

/** Used heap and array buffers, by the inspector at this address. */
async function heapOf(address: string): Promise<number> {
  const socket = new WebSocket(address);
  try {
    await once(socket, "open");
    socket.send(JSON.stringify({ id: 1, method: "Runtime.getHeapUsage" }));
    const [answer] = await once(socket, "message");
    const { usedSize, backingStorageSize } = JSON.parse(String(answer)).result;
    return usedSize + backingStorageSize;
  } finally {
    socket.close();
  }
}

/** Resident memory of a process in bytes, from /proc. */
export async function residentOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)![1]);
}
