/** A built page on a static host that does what such hosts do: it gzips texts and nothing else. */

import { readFileSync, statSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const ROOT = fileURLToPath(new URL("../out/", import.meta.url));
const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".woff2": "font/woff2",
  ".bin": "application/octet-stream",
  ".wasm": "application/wasm",
};
/** The page lies in a folder, as on many hosts, so that absolute addresses would fail. */
const FOLDER = "/some/folder/";

export interface Host {
  readonly url: string;
  /** What was sent since the last `forget`. */
  readonly sent: {
    /** On the wire, headers included. */
    readonly wire: number;
    /** Bodies before compression. */
    readonly unpacked: number;
    readonly files: readonly string[];
    readonly missing: readonly string[];
  };
  forget(): void;
  close(): Promise<void>;
}

/** @param root the folder with the built page: that of the playground, if none is given */
export async function host(root = ROOT): Promise<Host> {
  const sockets = new Set<Socket>();
  let closed = 0;
  let before = 0;
  let unpacked = 0;
  let files: string[] = [];
  let missing: string[] = [];
  const wire = (): number =>
    [...sockets].reduce((sum, { bytesWritten }) => sum + bytesWritten, closed);

  const server: Server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://host");
    const name = pathname === FOLDER ? "index.html" : pathname.slice(FOLDER.length);
    const file = path.join(root, path.normalize(`/${name}`));
    const type = TYPES[path.extname(file)];
    if (!pathname.startsWith(FOLDER) || !type || !statSync(file, { throwIfNoEntry: false })) {
      missing.push(pathname);
      response.writeHead(404).end();
      return;
    }
    const body = readFileSync(file);
    const text = /^text/.test(type);
    const packed = text ? gzipSync(body) : body;
    unpacked += body.length;
    files.push(name);
    response
      .writeHead(200, {
        "Content-Type": type,
        "Content-Length": packed.length,
        ...(text && { "Content-Encoding": "gzip" }),
      })
      .end(packed);
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => {
      closed += socket.bytesWritten;
      sockets.delete(socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${FOLDER}`,
    get sent() {
      return { wire: wire() - before, unpacked, files, missing };
    },
    forget() {
      before = wire();
      unpacked = 0;
      files = [];
      missing = [];
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
