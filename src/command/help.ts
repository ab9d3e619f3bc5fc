// The texts of --help.

import { COMMANDS, type CommandName, type OptionSpec } from "./arguments.js";
import { FAULTS } from "./findings.js";
import { wrap } from "./text.js";

/** What stands below the options of each command. */
const BELOW: Readonly<Record<CommandName, string>> = {
  inspect: `Reads .pt, .pth and .safetensors of PyTorch, .onnx, .keras and .h5 of Keras, and
the model.json of TensorFlow.js. Of a state_dict, --eps and --layout are not in
the file; neither are epsilon and layout in Keras' files of weights alone, but
in the model's JSON (--config: what model.to_json() returns, or config.json).
PyTorch's momentum is the weight of the new value, all others' that of the old.

What all layers have in common stands above the table. "x" marks a layer whose
test time fails or gives no numbers, "!" one with a warning. A variance is small
if it is below epsilon: the layer divides by √(variance + epsilon), so that
outputs then spread by less than 1/√2 of gamma.

--json writes one object:
  { "version": 1, "files": [ {
      "file":   the path as given
      "error":  null, or why the file cannot be read; then nothing follows
      "format": "torch", "onnx", "keras", "tfjs" or "batchnorm-wasm"
      "momentumIsWeightOf": "old" or "new" value
      "layers": [ {
          "name", "channels", "layout"
          "module": the name in PyTorch, if an ONNX model tells it, or null
          "epsilon", "epsilonFrom": from is "file", "option" or "default"
          "momentum", "momentumFrom": null is PyTorch's cumulative average
          "batchesSeen": null if the file does not say it
          "variance", "gamma": { "min", "max" } of finite values, or null
          "findings": [ {
              "kind", "severity": "error" or "warning"
              "channels": their numbers, or null for the whole layer } ]
          "warnings": sentences of the reader
      } ]
      "broken": [ { "name", "error" } ], layers that cannot be read
  } ] }
Kinds: ${wrap(Object.keys(FAULTS).join(", "), 72, "  ")}.
Fields and kinds may be added; "version" changes if one goes or changes.`,
  fold: `Takes ONNX models, and the model.json of TensorFlow.js layers models with its
weight files, of which new ones are written beside OUT. They keep their names,
so for such a model OUT is in another folder. A batch norm is folded where that
is exact; of each that stays, the reason is printed. A model without batch norms
is refused. OUT is a folder if there is such a folder, or if it ends in a slash.
OUT may be FILE itself with --force: nothing is replaced before all is written.`,
  convert: `By the name of OUT and by what is in FILE:
  .pt, .pth  ->  .safetensors
      the whole state_dict
  .pt, .pth, .safetensors, .keras, .h5, model.json  ->  .onnx
      a model of the batch norms alone
  .onnx, .keras, .h5, model.json  ->  .safetensors
      the batch norms alone, with epsilon, momentum and layout; for load of
      batchnorm-wasm/state, and for PyTorch`,
};

const EXITS = `Exit codes: 0 done; 1 a file or a layer in it cannot be read or written;
2 the command line is wrong; 3 something is wrong in a layer (inspect --strict).`;

function optionLines(options: Readonly<Record<string, OptionSpec>>): string[] {
  const named = Object.entries(options).map(([name, { short, value, help }]): [string, string] => [
    `${short === undefined ? "    " : `-${short}, `}--${name}${value === undefined ? "" : ` ${value}`}`,
    help,
  ]);
  const width = Math.max(...named.map(([left]) => left.length));
  return named.map(([left, help]) => `  ${left.padEnd(width)}  ${help}`);
}

/** The help on a command, or on all of them. */
export function helpOf(command: CommandName | null): string {
  if (command !== null) {
    const { usage, summary, options } = COMMANDS[command];
    return [
      `batchnorm-wasm ${usage} [options]`,
      `${summary[0]!.toUpperCase()}${summary.slice(1)}.`,
      "",
      ...optionLines(options),
      "",
      BELOW[command],
      "",
      EXITS,
    ].join("\n");
  }
  const usages = Object.values(COMMANDS);
  const width = Math.max(...usages.map(({ usage }) => usage.length));
  return [
    "The batch norms of model files of PyTorch, ONNX, Keras and TensorFlow.js.",
    "",
    ...usages.map(({ usage, summary }) => `  batchnorm-wasm ${usage.padEnd(width)}  ${summary}`),
    "",
    "  batchnorm-wasm COMMAND --help  options of a command",
    "  batchnorm-wasm --version",
    "",
    EXITS,
  ].join("\n");
}
