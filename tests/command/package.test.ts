// The command as users get it: the packed package, installed, and run by npx. And dist/command.js as a process.

import { execFile } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { COMMAND, command, folder, golden, node } from "./command.js";

const { at } = folder();
const root = fileURLToPath(new URL("../../", import.meta.url));
// npm is a script for a shell on Windows.
const shell = process.platform === "win32";
const npm = async (cwd: string, program: "npm" | "npx", ...args: string[]): Promise<string> =>
  (await promisify(execFile)(program, args, { cwd, shell })).stdout;

describe("installed", () => {
  beforeAll(async () => {
    const packed = ["pack", "--silent", "--ignore-scripts", "--pack-destination", at(".")];
    await npm(root, "npm", ...packed);
    const tarball = readdirSync(at(".")).find((name) => name.endsWith(".tgz"))!;
    mkdirSync(at("project"));
    writeFileSync(at("project/package.json"), "{}");
    const quiet = ["--offline", "--ignore-scripts", "--no-audit", "--no-fund"];
    await npm(at("project"), "npm", "install", ...quiet, at(tarball));
  }, 120_000);

  test("npx batchnorm-wasm inspects, converts and folds", async () => {
    const npx = (...args: string[]) =>
      npm(at("project"), "npx", "--offline", "batchnorm-wasm", ...args);
    const { version } = JSON.parse(readFileSync(`${root}package.json`, "utf8"));
    expect(await npx("--version")).toBe(`${version}\n`);
    const path = golden("networks/residual.onnx");
    expect(await npx("inspect", path)).toBe(command(["inspect", path]).stdout);
    await npx("fold", path, "-o", "folded.onnx");
    expect(await npx("inspect", "folded.onnx")).toContain("no batch norms");
  });

  test("its files are those of dist/, and no source map is missing", () => {
    const files = readdirSync(at("project/node_modules/batchnorm-wasm/dist"));
    expect(files).toContain("command.js");
    expect(files).toContain("command.js.map");
  });
});

describe("the process", () => {
  const path = golden("torch/module.pt");

  test("prints what the command prints, and ends with its exit code", async () => {
    for (const args of [
      ["inspect", path],
      ["inspect", path, "--json"],
      ["inspect", at("missing")],
      ["inspect", path, at("missing"), "--json"],
      ["inspect", "--unknown"],
      [],
      ["--help"],
    ]) {
      expect(await node([COMMAND, ...args]), args.join(" ")).toEqual(command(args));
    }
    expect((await node([COMMAND, "inspect", golden("torch/averaged.pt"), "--strict"])).code).toBe(
      command(["inspect", golden("torch/averaged.pt"), "--strict"]).code,
    );
  });

  test("ends well when nobody reads on", async () => {
    const script = `
      const { spawn } = require("node:child_process");
      const many = Array(400).fill(${JSON.stringify(path)});
      const child = spawn(process.execPath, [${JSON.stringify(COMMAND)}, "inspect", ...many, "--json"]);
      let error = "";
      child.stderr.on("data", (data) => (error += data));
      child.stdout.once("data", () => child.stdout.destroy());
      child.on("close", (code) => console.log(JSON.stringify([code, error])));
    `;
    const { stdout } = await node(["-e", script]);
    expect(JSON.parse(stdout)).toEqual([0, ""]);
  });
});
