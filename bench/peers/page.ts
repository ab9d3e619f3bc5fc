// What has threads in browsers only, measured in a page of headless Chromium: the wasm backend of TensorFlow.js, which starts no
// threads in Node (WASM_HAS_MULTITHREAD_SUPPORT in its flags_wasm.ts is false there), and this package beside it. The page
// (bench/page.ts) asks a server of this process for commands, so nothing has to drive the browser. Both headers of the server
// are what browsers want before they let a page share memory between threads.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { findProgram } from "../../examples/mnist/programs.js";
import type { Case, PeerOp } from "../cases.js";
import { descendants } from "../cores.js";
import type { Command, PageSide, Reply } from "../page.js";
import { type Answer, Missing, type Peer, peerModule, type Session } from "./peer.js";

const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cache-Control": "no-store",
};

const CHROMIUM_FLAGS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Milliseconds within which the page has to load and start its threads. */
const PATIENCE = 60_000;

/** A reply of the page, with the bytes of its arrays. */
interface Told extends Reply {
  readonly body: Buffer;
}

export class Page {
  #sessions = 0;
  /** The request that waits for a command. */
  #idle: ServerResponse | undefined;
  /** Who waits for the reply to the last command. */
  #waiting: { resolve(told: Told): void; reject(error: Error): void } | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;

  private constructor(
    readonly count: number,
    readonly version: string,
    private readonly server: Server,
    private readonly folder: string,
  ) {}

  private browser!: ChildProcess;

  /** Starts Chromium with a page on `count` threads. Throws Missing if it, or TensorFlow.js, is not installed. */
  static async start(count: number): Promise<Page> {
    const chromium = findProgram("chromium");
    if (!chromium) throw new Missing("no Chromium", "apt-get install chromium");
    const { resolve } = createRequire(import.meta.url);
    // The tests have its backend installed, but not the package itself, which the page needs too.
    const entry = await peerModule(async () => {
      resolve("@tensorflow/tfjs");
      return resolve("@tensorflow/tfjs-backend-wasm");
    });
    const script = await bundle();
    const files = dirname(entry);
    const { version } = JSON.parse(readFileSync(join(files, "../package.json"), "utf8"));
    const server = createServer((request, response) =>
      page.#serve(request, response, script, files),
    );
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const page: Page = new Page(
      count,
      version,
      server,
      mkdtempSync(join(tmpdir(), "batchnorm-bench-page-")),
    );
    await page.#launch(chromium);
    return page;
  }

  async #launch(chromium: string): Promise<void> {
    const { port } = this.server.address() as AddressInfo;
    const address = `http://127.0.0.1:${port}/?threads=${this.count}`;
    const late = setTimeout(() => this.#fail("the page did not start"), PATIENCE);
    const ready = this.#reply();
    this.browser = spawn(chromium, [...CHROMIUM_FLAGS, `--user-data-dir=${this.folder}`, address], {
      stdio: "ignore",
    });
    // A signal would end this process without the event `exit`, and leave the browser running.
    for (const signal of ["SIGINT", "SIGTERM"] as const)
      process.once(signal, () => process.exit(1));
    process.once("exit", () => {
      this.browser.kill("SIGKILL");
      this.#clean();
    });
    this.browser.on("error", (error) => this.#fail(error.message));
    this.browser.on("exit", () => this.#fail("Chromium ended"));
    try {
      await ready;
    } catch (error) {
      this.close();
      throw error;
    } finally {
      clearTimeout(late);
    }
  }

  /** The processes of the browser, in which all threads of the page are. */
  readonly processes = (): number[] => descendants(this.browser.pid!);

  /** Has the page do something. Commands given while it is at one wait for their turn. */
  ask(command: Command): Promise<Told> {
    const told = this.#last.then(() => {
      const reply = this.#reply();
      this.#idle!.writeHead(200, { ...HEADERS, "Content-Type": "application/json" });
      this.#idle!.end(JSON.stringify(command));
      this.#idle = undefined;
      return reply;
    });
    this.#last = told;
    return told;
  }

  newSession(): number {
    return this.#sessions++;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.server.close();
    this.server.closeAllConnections();
    this.browser.once("exit", () => this.#clean());
    this.browser.kill();
  }

  #clean(): void {
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }

  #reply(): Promise<Told> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  #fail(reason: string): void {
    this.#waiting?.reject(new Error(`Chromium: ${reason}`));
    this.#waiting = undefined;
  }

  #serve(request: IncomingMessage, response: ServerResponse, script: string, files: string): void {
    const { pathname, searchParams } = new URL(request.url!, "http://localhost");
    const give = (type: string, body: string | Buffer): void => {
      response.writeHead(200, { ...HEADERS, "Content-Type": type });
      response.end(body);
    };
    if (pathname === "/next") {
      void this.#next(request, response, JSON.parse(searchParams.get("reply")!));
    } else if (pathname === "/") {
      give("text/html", '<!doctype html><script type="module" src="/page.js"></script>');
    } else if (pathname === "/page.js") give("text/javascript", script);
    else if (/^\/tfjs\/[\w-]+\.wasm$/.test(pathname)) {
      give("application/wasm", readFileSync(join(files, pathname.slice("/tfjs/".length))));
    } else response.writeHead(404, HEADERS).end();
  }

  async #next(request: IncomingMessage, response: ServerResponse, reply: Reply): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    this.#idle = response;
    if (reply.error !== undefined) this.#fail(reply.error);
    else this.#waiting?.resolve({ ...reply, body: Buffer.concat(parts) });
  }
}

/** The page with all that it imports, as one script. */
async function bundle(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("../page.ts", import.meta.url))],
    bundle: true,
    write: false,
    format: "esm",
    platform: "browser",
    target: "es2022",
    logLevel: "error",
  });
  return outputFiles[0].text;
}

/** TensorFlow.js on the threads of a page. */
export const tfjsIn = (page: Page): Peer => ({
  ...inPage(page, "tfjs", "tfjs-wasm"),
  version: page.version,
  kind: "javascript",
});

/** This package in the same page, for what TensorFlow.js can do. */
export const oursIn = (page: Page, way: Exclude<PageSide, "tfjs">, name: string): Peer => ({
  ...inPage(page, way, name),
  version: "",
  kind: "ours",
});

const inPage = (page: Page, side: PageSide, name: string): Omit<Peer, "version" | "kind"> => ({
  name,
  layouts: ["NC", "NHWC"],
  ops: ["infer", "train"],
  apart: true,
  open: (c: Case, op: PeerOp) => open(page, side, c, op),
  processes: page.processes,
  close: () => page.close(),
});

async function open(page: Page, side: PageSide, c: Case, op: PeerOp): Promise<Session> {
  const session = page.newSession();
  const dims: readonly number[] = JSON.parse(c.name);
  await page.ask({ do: "open", session, side, dims, layout: c.layout, op });
  return {
    answer: async () => arraysOf(await page.ask({ do: "answer", session })),
    sample: async (calls) => (await page.ask({ do: "sample", session, calls })).value!,
    // The browser may end before its turn comes.
    close: () => void page.ask({ do: "close", session }).catch(() => {}),
  };
}

function arraysOf({ arrays = [], body }: Told): Answer {
  const bytes = Uint8Array.from(body);
  let offset = 0;
  const entries = arrays.map(([name, length]) => {
    const values = new Float32Array(bytes.buffer, offset, length);
    offset += values.byteLength;
    return [name, values] as const;
  });
  return Object.fromEntries(entries);
}
