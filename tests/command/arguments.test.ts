// The command line: what is understood, and what is refused with exit code 2.

import { describe, expect, test } from "vitest";
import { COMMANDS } from "../../src/command/arguments.js";
import { command, golden } from "./command.js";

describe("help", () => {
  test.each([[["--help"]], [["-h"]], [["help"]]])("%j lists the commands", (args) => {
    const { code, stdout, stderr } = command(args);
    expect([code, stderr]).toEqual([0, ""]);
    for (const { usage } of Object.values(COMMANDS)) {
      expect(stdout).toContain(`  batchnorm-wasm ${usage}`);
    }
    expect(stdout).toContain("Exit codes: 0 done; 1 ");
  });

  test.each(Object.keys(COMMANDS))("%s --help names every option", (name) => {
    const { code, stdout } = command([name, "--help"]);
    expect(code).toBe(0);
    expect(command(["help", name]).stdout).toBe(stdout);
    expect(command([name, "file", "-h"]).stdout).toBe(stdout);
    for (const option of Object.keys(COMMANDS[name as "fold"].options)) {
      expect(stdout).toMatch(new RegExp(`^  (    |-\\w, )--${option}\\b`, "m"));
    }
    for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
  });

  test("a folder takes what fold writes, and not what convert writes, whose name says the format", () => {
    expect(command(["fold", "--help"]).stdout).toMatch(
      /--output OUT +the file to write, or a folder\n/,
    );
    expect(command(["convert", "--help"]).stdout).toMatch(/--output OUT +the file to write, named/);
  });

  test.each([[["--version"]], [["-v"]], [["version"]]])("%j", (args) => {
    expect(command(args)).toEqual({ code: 0, stdout: "1.2.3\n", stderr: "" });
  });
});

test("--config names a file that can be read, and one flag at most says what layers lack", () => {
  const path = golden("keras-files/weights.h5");
  expect(command(["inspect", path, "--config", "missing.json"])).toEqual({
    code: 2,
    stdout: "",
    stderr:
      "batchnorm-wasm: --config missing.json: no such file; see batchnorm-wasm inspect --help\n",
  });
  const { code, stderr } = command(["inspect", path, "--no-scale", "--no-center"]);
  expect(code).toBe(2);
  expect(stderr).toContain("--no-scale, --no-center: expected one of them, got both");
});

describe("what is wrong is named, with what is known", () => {
  const onnx = golden("opset15.onnx");
  test.each<[string, string[], string]>([
    ["nothing", [], "no command: inspect, fold and convert are known"],
    ["a file alone", ["m.onnx"], 'unknown command "m.onnx": inspect, fold and convert are known'],
    ["an option first", ["--json", "x"], "options follow a command"],
    ["help on nothing", ["help", "me"], 'unknown command "me"'],
    ["the name of a method", ["toString"], 'unknown command "toString"'],
    ["no file", ["inspect"], "inspect: no file given: batchnorm-wasm inspect FILE…"],
    [
      "an option",
      ["inspect", onnx, "--jsn"],
      "unknown option --jsn: inspect knows --json, --strict",
    ],
    ["its name with a value", ["inspect", onnx, "--x=1"], "unknown option --x: inspect knows"],
    [
      "a short one",
      ["fold", onnx, "-q"],
      "unknown option -q: fold knows --output, --force, --help",
    ],
    ["an option of another", ["inspect", onnx, "--force"], "unknown option --force: inspect"],
    ["a value too many", ["inspect", onnx, "--json=1"], '--json takes no value, got "1"'],
    ["a value missing", ["fold", onnx, "-o"], "-o takes a value: -o OUT"],
    ["an option in its place", ["fold", onnx, "-o", "--force"], "-o takes a value: -o OUT"],
    ["an empty one", ["inspect", onnx, "--key="], "--key takes a value: --key KEY"],
    ["no output", ["fold", onnx], "fold: -o says where to write, and is missing"],
    ["two files", ["convert", onnx, onnx, "-o", "x.onnx"], "convert takes one file, got 2"],
    ["no number", ["inspect", onnx, "--eps", "small"], '--eps: expected a number, got "small"'],
    ["an empty number", ["inspect", onnx, "--momentum", " "], "--momentum: expected a number"],
    ["eps", ["inspect", onnx, "--eps", "-1"], "--eps: expected a finite number >= 0, got -1"],
    [
      "momentum",
      ["inspect", onnx, "--momentum", "1.5"],
      "--momentum: expected a number from 0 to 1",
    ],
    ["layout", ["inspect", onnx, "--layout", "NWC"], '--layout: expected one of "NC", '],
    [
      "a format",
      ["convert", onnx, "-o", "x.pth"],
      "convert writes .safetensors and .onnx; write .saf",
    ],
    [
      "no format",
      ["convert", onnx, "-o", "x"],
      "-o x: convert writes .safetensors and .onnx; end the name",
    ],
    [
      "a folder, which does not tell the format",
      ["convert", onnx, "-o", "folder/"],
      "-o folder/: convert writes .safetensors and .onnx; end the name",
    ],
  ])("%s", (_, args, message) => {
    const { code, stdout, stderr } = command(args);
    expect([code, stdout]).toEqual([2, ""]);
    // Its options are in the help of the command at hand.
    const named = Object.hasOwn(COMMANDS, args[0] ?? "") ? `${args[0]} --help` : "--help";
    expect(stderr).toMatch(/^batchnorm-wasm: .*\n$/);
    expect(stderr.endsWith(`; see batchnorm-wasm ${named}\n`), stderr).toBe(true);
    expect(stderr).toContain(message);
  });

  test("after --, everything is a file", () => {
    const { code, stderr } = command(["inspect", "--", "--json"]);
    expect([code, stderr]).toEqual([1, "batchnorm-wasm: --json: no such file\n"]);
  });
});
