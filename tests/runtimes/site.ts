// A web server for pages under test: files as they are, and what the pages report.

import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

interface Mount {
  readonly folder: string;
  readonly headers: Record<string, string>;
}

export class Site {
  readonly #server: Server;
  readonly #mounts = new Map<string, Mount>();
  readonly #waiting = new Map<string, (body: string) => void>();
  #next = 0;

  private constructor() {
    this.#server = createServer(async (request, response) => {
      const { pathname } = new URL(request.url!, "http://localhost");
      const [, first = "", ...rest] = pathname.split("/");
      if (request.method === "POST") {
        let body = "";
        for await (const chunk of request) body += chunk;
        this.#waiting.get(rest.join("/"))?.(body);
        response.writeHead(204).end();
        return;
      }
      const mount = this.#mounts.get(first);
      try {
        const path = normalize(rest.join("/") || "index.html");
        const body = await readFile(join(mount!.folder, path));
        response.writeHead(200, {
          "content-type": TYPES[extname(path)] ?? "application/octet-stream",
          // Isolated, so that pages have SharedArrayBuffer and may measure their memory.
          "cross-origin-opener-policy": "same-origin",
          "cross-origin-embedder-policy": "require-corp",
          ...mount!.headers,
        });
        response.end(body);
      } catch {
        response.writeHead(404).end();
      }
    });
  }

  static async start(): Promise<Site> {
    const site = new Site();
    await new Promise<void>((resolve) => site.#server.listen(0, "127.0.0.1", resolve));
    return site;
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Serves a folder: the address of its root. */
  serve(folder: string, headers: Record<string, string> = {}): string {
    const name = `site${++this.#next}`;
    this.#mounts.set(name, { folder, headers });
    return `${this.origin}/${name}/`;
  }

  /** An address that a page can post JSON to, and what it posted. */
  report(): { address: string; posted: Promise<unknown> } {
    const id = String(++this.#next);
    const posted = new Promise<unknown>((resolve) => {
      this.#waiting.set(id, (body) => resolve(JSON.parse(body)));
    });
    return { address: `${this.origin}/report/${id}`, posted };
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}
