/**
 * The built site on a static host that does what such hosts do: it gzips texts, sends everything else as it is, and, if
 * asked, the two headers that isolate pages.
 */

import { readFileSync, statSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const ROOT = fileURLToPath(new URL("../../build/site-tested/", import.meta.url));
/** The folder of the host, so that absolute addresses would fail: the build was told it. */
export const FOLDER = "/some/folder/";
const TEXTS: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".json": "application/json",
};
const OTHERS: Readonly<Record<string, string>> = {
  ".woff2": "font/woff2",
  ".wasm": "application/wasm",
};

/** A file that was sent. */
export interface Sent {
  readonly name: string;
  /** Bytes on the wire: the body, gzipped if it is text, and the head of the answer. */
  readonly bytes: number;
}

export class Host {
  readonly sent: Sent[] = [];
  readonly missing: string[] = [];
  readonly #server: Server;

  private constructor(isolated: boolean) {
    this.#server = createServer((request, response) => {
      const { pathname } = new URL(request.url ?? "/", "http://host");
      const inside = decodeURIComponent(pathname).slice(FOLDER.length);
      const name = inside === "" || inside.endsWith("/") ? `${inside}index.html` : inside;
      const file = path.join(ROOT, path.normalize(`/${name}`));
      if (!pathname.startsWith(FOLDER) || !statSync(file, { throwIfNoEntry: false })?.isFile()) {
        this.missing.push(pathname);
        response.writeHead(404).end();
        return;
      }
      const extension = path.extname(file);
      const text = TEXTS[extension];
      const body = readFileSync(file);
      const packed = text === undefined ? body : gzipSync(body);
      const head = {
        "Content-Type": text ?? OTHERS[extension] ?? "application/octet-stream",
        "Content-Length": String(packed.length),
        ...(text !== undefined && { "Content-Encoding": "gzip" }),
        ...(isolated && {
          "Cross-Origin-Opener-Policy": "same-origin",
          "Cross-Origin-Embedder-Policy": "require-corp",
        }),
      };
      const lines = Object.entries(head).map(([key, value]) => `${key}: ${value}\r\n`);
      this.sent.push({
        name,
        bytes: packed.length + `HTTP/1.1 200 OK\r\n${lines.join("")}\r\n`.length,
      });
      response.writeHead(200, head).end(packed);
    });
  }

  static async start({ isolated }: { isolated: boolean }): Promise<Host> {
    const host = new Host(isolated);
    await new Promise<void>((resolve) => host.#server.listen(0, "127.0.0.1", resolve));
    return host;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}${FOLDER}`;
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }
}
