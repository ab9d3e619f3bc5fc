// The command line: which commands and options there are, and what was given.

import { parseArgs } from "node:util";
import { BatchNorm, type Layout, OptionError } from "../index.js";
import { UsageError } from "./failure.js";
import type { Facts } from "./model.js";

/** An option of a command. */
export interface OptionSpec {
  readonly short?: string;
  /** The word that stands for its value in help, if it has one. */
  readonly value?: string;
  readonly help: string;
}

const FACTS = {
  eps: {
    value: "NUMBER",
    help: "epsilon, where the file does not say it",
  },
  momentum: {
    value: "NUMBER",
    help: "momentum, in the convention of the file's framework",
  },
  layout: {
    value: "LAYOUT",
    help: "order of the axes: NCHW, NHWC, channelsFirst, …",
  },
  key: { value: "KEY", help: "which model, in a checkpoint that holds several" },
  config: {
    value: "FILE",
    help: "the model's JSON, for Keras' files of weights alone",
  },
  "no-scale": { help: "layers of such a file with three arrays lack gamma" },
  "no-center": { help: "layers of such a file with three arrays lack beta" },
} as const satisfies Record<string, OptionSpec>;

const FORCE = { force: { help: "overwrite files that exist" } } as const satisfies Record<
  string,
  OptionSpec
>;

const HELP = { help: { short: "h", help: "this text" } } as const satisfies Record<
  string,
  OptionSpec
>;

/** A command. */
export interface CommandSpec {
  readonly usage: string;
  /** What it does, in a few words for the list of commands. */
  readonly summary: string;
  readonly options: Readonly<Record<string, OptionSpec>>;
}

/** All commands by name. */
export const COMMANDS = {
  inspect: {
    usage: "inspect FILE…",
    summary: "batch norms of models, and what is wrong in them",
    options: {
      json: { help: "JSON for programs, of the shape below" },
      strict: { help: "exit code 3 if anything is wrong with a layer" },
      ...FACTS,
      ...HELP,
    },
  },
  fold: {
    usage: "fold FILE -o OUT",
    summary: "a network with its batch norms folded in",
    options: {
      output: {
        short: "o",
        value: "OUT",
        help: "the file to write, or a folder",
      },
      ...FORCE,
      ...HELP,
    },
  },
  convert: {
    usage: "convert FILE -o OUT",
    summary: "a model file, or its batch norms, in another format",
    options: {
      output: {
        short: "o",
        value: "OUT",
        help: "the file to write, named .safetensors or .onnx",
      },
      ...FORCE,
      ...FACTS,
      ...HELP,
    },
  },
} as const satisfies Record<string, CommandSpec>;

/** The name of a command. */
export type CommandName = keyof typeof COMMANDS;

/** What was asked for: a command with its files and options, or a text about it. */
export type Request =
  | { readonly kind: "help"; readonly command: CommandName | null }
  | { readonly kind: "version" }
  | {
      readonly kind: "run";
      readonly command: CommandName;
      readonly files: readonly string[];
      readonly values: Readonly<Record<string, string | boolean>>;
    };

const isCommand = (name: string): name is CommandName => Object.hasOwn(COMMANDS, name);

/**
 * Reads the arguments of the process.
 *
 * @throws UsageError for what is unknown, or is missing. It names what is known.
 */
export function requestOf(args: readonly string[]): Request {
  const [first, ...rest] = args;
  if (first === undefined) throw new UsageError(`no command: ${knownCommands()}`);
  if (["--version", "-v", "version"].includes(first)) return { kind: "version" };
  if (first === "--help" || first === "-h") return { kind: "help", command: null };
  if (first === "help") {
    const [about] = rest;
    if (about === undefined) return { kind: "help", command: null };
    return { kind: "help", command: commandOf(about) };
  }
  const command = commandOf(first);
  const { files, values } = parse(command, rest);
  if (values.help === true) return { kind: "help", command };
  if (files.length === 0) throw new UsageError(`${command}: no file given: ${usageOf(command)}`);
  if (command === "inspect") return { kind: "run", command, files, values };
  if (files.length > 1) throw new UsageError(`${command} takes one file, got ${files.length}`);
  if (values.output === undefined) {
    throw new UsageError(`${command}: -o says where to write, and is missing: ${usageOf(command)}`);
  }
  return { kind: "run", command, files, values };
}

const usageOf = (command: CommandName): string => `batchnorm-wasm ${COMMANDS[command].usage}`;
const knownCommands = (): string => {
  const names = Object.keys(COMMANDS);
  return `${names.slice(0, -1).join(", ")} and ${names.at(-1)} are known`;
};

function commandOf(name: string): CommandName {
  if (isCommand(name)) return name;
  const hint = name.startsWith("-")
    ? "options follow a command"
    : `inspect ${name} looks into a file`;
  throw new UsageError(`unknown command "${name}": ${knownCommands()}; ${hint}`);
}

/** The files and options of a command. */
function parse(command: CommandName, args: readonly string[]) {
  const specs: Readonly<Record<string, OptionSpec>> = COMMANDS[command].options;
  const options = Object.fromEntries(
    Object.entries(specs).map(([name, { short, value }]) => [
      name,
      { type: value === undefined ? "boolean" : "string", ...(short !== undefined && { short }) },
    ]),
  ) as Record<string, { type: "boolean" | "string"; short?: string }>;
  // Not strict, as its messages do not name what is known.
  const { tokens } = parseArgs({
    args: [...args],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const files: string[] = [];
  const values: Record<string, string | boolean> = {};
  for (const token of tokens) {
    if (token.kind === "positional") files.push(token.value);
    if (token.kind !== "option") continue;
    const spec = Object.hasOwn(specs, token.name) ? specs[token.name] : undefined;
    if (spec === undefined) {
      const known = Object.keys(specs).map((name) => `--${name}`);
      throw new UsageError(`unknown option ${token.rawName}: ${command} knows ${known.join(", ")}`);
    }
    values[token.name] = valueGiven(token, spec);
  }
  return { files, values };
}

/** The value of an option, `true` for one that has none. */
function valueGiven(
  token: { rawName: string; value?: string | undefined; inlineValue?: boolean | undefined },
  spec: OptionSpec,
): string | boolean {
  const { rawName, value, inlineValue } = token;
  if (spec.value === undefined) {
    if (value === undefined) return true;
    throw new UsageError(`${rawName} takes no value, got "${value}"`);
  }
  const isNext = value === undefined || value === "" || (!inlineValue && /^-[^\d]/.test(value));
  if (isNext) throw new UsageError(`${rawName} takes a value: ${rawName} ${spec.value}`);
  return value;
}

/**
 * What the user says about the files, but for the content of the file that `--config` names.
 *
 * @throws UsageError for what no layer can have.
 */
export function factsOf(values: Readonly<Record<string, string | boolean>>): Facts {
  const { eps, momentum, layout, key } = values as Readonly<Record<string, string | undefined>>;
  const facts = {
    ...(eps !== undefined && { eps: numberOf("eps", eps) }),
    ...(momentum !== undefined && { momentum: numberOf("momentum", momentum) }),
    ...(layout !== undefined && { layout: layout as Layout }),
    ...(key !== undefined && { key }),
    ...(values["no-scale"] === true && { scale: false as const }),
    ...(values["no-center"] === true && { center: false as const }),
  };
  if (facts.scale === false && facts.center === false) {
    throw new UsageError("--no-scale, --no-center: expected one of them, got both");
  }
  if (facts.momentum !== undefined && !(facts.momentum >= 0 && facts.momentum <= 1)) {
    throw new UsageError(`--momentum: expected a number from 0 to 1, got ${momentum}`);
  }
  try {
    new BatchNorm(1, {
      ...(facts.eps !== undefined && { epsilon: facts.eps }),
      ...(facts.layout !== undefined && { layout: facts.layout }),
    });
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    throw new UsageError(`--${error.message.replace(/^epsilon/, "eps")}`);
  }
  return facts;
}

function numberOf(name: string, text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value)) return value;
  throw new UsageError(`--${name}: expected a number, got "${text}"`);
}
