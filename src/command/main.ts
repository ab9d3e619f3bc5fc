// The command, from its arguments to its exit code.

import type { WriteStream } from "node:tty";
import { COMMANDS, factsOf, requestOf } from "./arguments.js";
import { convertModel, targetOf } from "./convert.js";
import { checkFree, inputAt, placeOf, readFile, writeFiles } from "./disk.js";
import { EXIT, sentenceOf, UsageError } from "./failure.js";
import { foldModel } from "./fold.js";
import { helpOf } from "./help.js";
import { type FileReport, hasFindings, inspectModel } from "./inspect.js";
import type { Facts } from "./model.js";
import { textOfReport } from "./report.js";
import { tableOf } from "./table.js";
import { hasColours, type Progress, paintOf, progressOn, widthOf } from "./terminal.js";
import { counted, plain, size } from "./text.js";

/** What the command has of the process that it runs in. */
export interface Surroundings {
  readonly stdout: Pick<WriteStream, "write"> & Partial<WriteStream>;
  readonly stderr: Pick<WriteStream, "write"> & Partial<WriteStream>;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
}

type Values = Readonly<Record<string, string | boolean>>;

/** Runs the command, and returns its exit code. */
export function run(args: readonly string[], around: Surroundings): number {
  try {
    const request = requestOf(args);
    if (request.kind === "version") return print(around, around.version);
    if (request.kind === "help") return print(around, helpOf(request.command));
    const { command, files, values } = request;
    if (command === "inspect") return inspect(files, values, around);
    return write(command, files[0]!, values, around);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    const [first = ""] = args;
    const command = Object.hasOwn(COMMANDS, first) ? `${first} ` : "";
    complain(around, `${sentenceOf(error)}; see batchnorm-wasm ${command}--help`);
    return EXIT.usage;
  }
}

/** What the user says about the files, the file that `--config` names read. */
function factsIn(values: Values, stderr: Surroundings["stderr"]): Facts {
  const facts = factsOf(values);
  const { config: path } = values;
  if (typeof path !== "string") return facts;
  const progress = progressOn(stderr);
  try {
    return { ...facts, config: readFile(path, progress) };
  } catch (error) {
    throw new UsageError(`--config ${path}: ${sentenceOf(error)}`);
  } finally {
    progress.clear();
  }
}

function print({ stdout }: Surroundings, text: string): number {
  stdout.write(`${text}\n`);
  return EXIT.done;
}

const complain = ({ stderr }: Surroundings, sentence: string): void =>
  void stderr.write(`batchnorm-wasm: ${sentence}\n`);

/** Prints what is in files, and what is wrong with it. */
function inspect(files: readonly string[], values: Values, around: Surroundings): number {
  const { stdout, stderr, env } = around;
  const facts = factsIn(values, stderr);
  const width = widthOf(stdout, env);
  const paint = paintOf(hasColours(stdout));
  const reports: object[] = [];
  let [failed, found, printed] = [false, false, false];
  for (const file of files) {
    const progress = progressOn(stderr);
    const report = reportOn(file, facts, progress);
    progress.clear();
    failed ||= "error" in report || report.broken.length > 0;
    if ("error" in report) {
      complain(around, `${plain(file)}: ${report.error}`);
      reports.push(report);
      continue;
    }
    found ||= hasFindings(report);
    const { file: name, countsBatches: _, ...rest } = report;
    reports.push({ file: name, error: null, ...rest });
    if (values.json === true) continue;
    print(around, `${printed ? "\n" : ""}${textOfReport(report, width, paint)}`);
    printed = true;
  }
  if (values.json === true) print(around, jsonOf({ version: 1, files: reports }));
  if (failed) return EXIT.failed;
  return found && values.strict === true ? EXIT.findings : EXIT.done;
}

function reportOn(
  file: string,
  facts: Facts,
  progress: Progress,
): FileReport | { file: string; error: string } {
  try {
    const input = inputAt(file, progress);
    return inspectModel(input, facts, (done, all) =>
      progress.show(`layers of ${file}`, done / all),
    );
  } catch (error) {
    return { file, error: explained(file, error) };
  }
}

/**
 * JSON with the lists of numbers in a line each. No text in JSON has a line break as it is, so a bracket before one
 * is no part of a text; characters that command a terminal are written by their numbers, as JSON can.
 */
function jsonOf(value: object): string {
  const lists = /\[\n\s+(-?\d[^[\]{}"]*?)\n\s+\]/g;
  return JSON.stringify(value, null, 2)
    .replace(lists, (_, numbers: string) => `[${numbers.replace(/\s+/g, " ")}]`)
    .split("\n")
    .map(plain)
    .join("\n");
}

/** The error of a file, with what helps where the name of the file tells more than its bytes. */
function explained(file: string, error: unknown): string {
  const shard = /group\d+-shard\d+of\d+/.test(file);
  return (
    sentenceOf(error) + (shard ? " (a shard of a TensorFlow.js model: name its model.json)" : "")
  );
}

/** Folds or converts a file. */
function write(
  command: "fold" | "convert",
  file: string,
  values: Values,
  around: Surroundings,
): number {
  const progress = progressOn(around.stderr);
  const force = values.force === true;
  const facts = factsIn(values, around.stderr);
  const given = values.output as string;
  // The name of the file that is converted has the wrong end, so a folder does not tell what to write.
  const target = command === "convert" ? targetOf(given) : null;
  const out = target === null ? placeOf(given, file) : given;
  try {
    checkFree([out], force);
    const input = inputAt(file, progress);
    if (target === null) {
      const { outputs, folded, kept } = foldModel(input, out);
      writeFiles(outputs, force);
      progress.clear();
      const all = folded.length + kept.length;
      print(around, `${folded.length} of ${counted(all, "batch norm")} folded`);
      for (const row of keptLines(kept, widthOf(around.stdout, around.env))) print(around, row);
      const bytes = outputs.reduce((sum, { content }) => sum + content.length, 0);
      const more =
        outputs.length > 1 ? ` and ${counted(outputs.length - 1, "file")} beside it` : "";
      return print(around, `written: ${plain(out)}${more}, ${size(bytes)}`);
    }
    const { bytes, notes } = convertModel(input, target, facts);
    writeFiles([{ path: out, content: bytes }], force);
    progress.clear();
    for (const note of notes) print(around, plain(note));
    return print(around, `written: ${plain(out)}, ${size(bytes.length)}`);
  } catch (error) {
    progress.clear();
    if (error instanceof UsageError) throw new UsageError(`${file}: ${error.message}`);
    complain(around, `${plain(file)}: ${explained(file, error)}`);
    return EXIT.failed;
  }
}

function keptLines(kept: readonly { name: string; reason: string }[], width: number): string[] {
  if (kept.length === 0) return [];
  const columns = [
    { title: "kept", cells: kept.map(({ name }) => plain(name)), flexible: true },
    { title: "because", cells: kept.map(({ reason }) => plain(reason)) },
  ];
  return tableOf(columns, width - 2).map((row) => `  ${row}`);
}
