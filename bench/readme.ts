// The README's figures of speed: of the latest record, between two comments of the README.
// `npm run bench -- --report` writes them, and tests/readme.test.ts holds the README to them.

import { OPS, type Op } from "./cases.js";
import { geometricMean, number, theirTime } from "./goals.js";
import { FROZEN, PLAIN, RESIDENT } from "./ours.js";
import { allRecords, type Measured, type Result, timeOf } from "./record.js";

const BEGIN = "<!-- bench: speed -->";
const END = "<!-- end -->";

/** What the table compares with, and which of our ways: the one that treats its arrays as the other does. */
const ROWS = [
  { peer: "oneDNN", label: "oneDNN VERSION", note: "¹", ours: RESIDENT },
  { peer: "PyTorch", label: "PyTorch VERSION", note: "¹", ours: RESIDENT },
  { peer: "tfjs-wasm", label: "TensorFlow.js VERSION, wasm backend", note: "²", ours: PLAIN },
  { peer: "js", label: "a JavaScript loop, four values at a time", note: "²", ours: PLAIN },
] as const;

/** From this many values on the README says which part of a call the copies are. */
const MANY = 65536;

function cellOf(result: Result, peer: string, ours: string, op: Op): string {
  const ratios = result.cases.flatMap((m) => {
    const [theirs, own] = [theirTime(result.cases, m, peer), timeOf(m, ours)];
    return m.op === op && theirs && own ? [theirs / own] : [];
  });
  if (ratios.length === 0) return "not measured alone";
  const [least, most] = [Math.min(...ratios), Math.max(...ratios)].map(number);
  return `${number(geometricMean(ratios))} (${least} – ${most})`;
}

function table(result: Result): string {
  const rows = ROWS.map(({ peer, label, note, ours }) => {
    const version = result.peers.find(({ name }) => name === peer)?.version ?? "";
    const named = label.replace("VERSION", version.replace(/^(\d+\.\d+).*/, "$1"));
    const cells = OPS.map((op) => cellOf(result, peer, ours, op));
    return `| ${named} ${note} | ${cells.join(" | ")} |`;
  });
  const head = "| compared with | test time | training, forward | gradients |\n|---|---|---|---|";
  return `${head}\n${rows.join("\n")}`;
}

/** Which part of `infer` on ordinary arrays is not there in kernel memory: the copies. */
function shareOfCopies(result: Result): string {
  const shares = result.cases
    .filter((m) => m.op === "infer" && m.size >= MANY)
    .map((m) => 1 - (timeOf(m, RESIDENT) as number) / (timeOf(m, PLAIN) as number));
  const percent = (share: number) => Math.round(100 * share);
  return `${percent(Math.min(...shares))} to ${percent(Math.max(...shares))} %`;
}

/** The text between the README's two comments. */
function textOf(result: Result): string {
  const { cpu, kind, node } = result.machine;
  const machine = cpu.replace(/\(R\)| Processor/g, "");
  const date = new Date(result.date).toLocaleDateString("en-GB", {
    dateStyle: "long",
    timeZone: "UTC",
  });
  const one = result.cases.find((m) => m.op === "infer" && m.name === "[1,64]") as Measured;
  const time = (side: string) => `${(timeOf(one, side) as number).toFixed(2)} µs`;
  return [
    `${machine}, Node ${node}, one thread, ${date}. Each figure is the other library's\n` +
      "time divided by ours: the geometric mean over all shapes, in brackets the least and the largest.\n" +
      "Above 1, this package is faster.",
    table(result),
    "¹ They need not copy their tensors. To compare like with like, ours lie in [kernel\n" +
      "memory](docs/guides/without-copies.md), so nothing is copied. ² Ordinary arrays; the result goes\n" +
      "into an array that is given.",
    `![How many times longer others take, for each shape](bench/results/${kind}/speedups.svg)`,
    `Ordinary arrays are copied in and out. For shapes of ${MANY.toLocaleString("en")} values and more, these copies take\n` +
      `${shareOfCopies(result)} of the time of \`infer\` in this record. For one small example at a time, use\n` +
      `\`freeze()\` and give \`out\`: 64 features then take ${time(FROZEN)}, where \`bn.infer\` takes ${time(PLAIN)} and\n` +
      `the JavaScript loop ${time("js")}.`,
  ].join("\n\n");
}

/** The README with the figures of the latest record. Throws if it does not have its two comments. */
export function withSpeed(readme: string): string {
  const begin = readme.indexOf(BEGIN);
  const end = readme.indexOf(END, begin);
  if (begin < 0 || end < 0) throw new Error(`README.md: expected ${BEGIN} and ${END}`);
  const results = allRecords().flatMap(({ result }) => (result ? [result] : []));
  if (results.length === 0) return readme;
  const latest = results.reduce((a, b) => (b.date > a.date ? b : a));
  return `${readme.slice(0, begin + BEGIN.length)}\n\n${textOf(latest)}\n\n${readme.slice(end)}`;
}
