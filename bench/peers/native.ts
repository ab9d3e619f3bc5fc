// PyTorch and oneDNN, native code on one thread (or more, in threads.ts). Each runs in a child process that reads a command from a line and
// answers with a line (native/onednn.cpp lists the commands). Tensors go through files in a temporary folder.

import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type Case, type Data, EPSILON, OPS, type PeerOp } from "../cases.js";
import { type Answer, Missing, type Peer, type Session } from "./peer.js";

const folder = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/**
 * PyTorch, with tensors in the order of the case. NHWC is what it calls channels_last. Of a block (block.ts), what
 * follows batch norm makes new tensors or, with `inPlace`, writes into the result of batch norm.
 */
export async function pytorch(inPlace = false): Promise<Peer> {
  const remedy = "apt-get install python3-torch python3-numpy";
  const candidates = [process.env.BENCH_PYTHON, "python3", "/usr/bin/python3"];
  const python = candidates.find((name) => name && runs(name, ["-c", "import numpy, torch"]));
  if (!python) throw new Missing("no python3 that imports torch and numpy", remedy);
  const child = await Child.start(python, [folder("native/torch_peer.py")]);
  const peer = nativePeer(child, (c) => c.layout.toLowerCase(), inPlace ? "_" : "");
  return inPlace ? { ...peer, name: `${peer.name}, in place` } : peer;
}

/** oneDNN. Rows are given to it as NHWC images of one position, because its fast kernels are those for NHWC. */
export async function onednn(): Promise<Peer> {
  const child = await Child.start(buildOnednn(), []);
  return { ...nativePeer(child, (c) => (c.inner > 1 ? "nchw" : "nhwc")), afters: ["relu"] };
}

function buildOnednn(): string {
  const source = folder("native/onednn.cpp");
  const build = folder("../build");
  const program = join(build, "onednn");
  if (existsSync(program) && statSync(program).mtimeMs > statSync(source).mtimeMs) return program;
  mkdirSync(build, { recursive: true });
  try {
    execFileSync("g++", ["-O2", "-std=c++17", source, "-ldnnl", "-o", program], { stdio: "pipe" });
  } catch (error) {
    const said = String((error as { stderr?: Buffer }).stderr ?? error);
    const reason = said.split("\n").find((line) => /error|ENOENT/.test(line)) ?? said;
    throw new Missing(`g++ with oneDNN: ${reason.trim()}`, "apt-get install g++ libdnnl-dev");
  }
  return program;
}

function runs(program: string, args: string[]): boolean {
  try {
    execFileSync(program, args, { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** `suffix` is what the child process has behind the name of what follows batch norm. */
function nativePeer(child: Child, format: (c: Case) => string, suffix = ""): Peer {
  const [name, version] = child.greeting.split(" ");
  return {
    name,
    version,
    kind: "native",
    layouts: ["NC", "NCHW", "NHWC"],
    ops: OPS,
    open: (c, op, data) => open(child, format(c), c, op, data, suffix),
    processes: () => [child.pid],
    close: () => child.end(),
  };
}

async function open(
  child: Child,
  format: string,
  c: Case,
  op: PeerOp,
  data: Data,
  suffix: string,
): Promise<Session> {
  const after = c.after ? `${c.after === "relu" ? "relu" : "add"}${suffix}` : "none";
  const files = mkdtempSync(join(tmpdir(), "batchnorm-bench-"));
  for (const [name, values] of Object.entries(data) as [string, Float32Array][]) {
    writeFileSync(join(files, `${name}.f32`), values);
  }
  const [n, channels] = [c.shape[0], c.channels];
  const [h, w] =
    c.layout === "NC" ? [1, 1] : c.layout === "NCHW" ? c.shape.slice(2) : c.shape.slice(1, 3);
  await child.ask(`open ${op} ${format} ${n} ${channels} ${h} ${w} ${EPSILON} ${files} ${after}`);
  // Node returns a small file as a part of a larger buffer, at any offset, so its bytes are copied.
  const read = (name: string) =>
    new Float32Array(Uint8Array.from(readFileSync(join(files, `${name}.f32`))).buffer);
  const answer: Answer =
    op === "backward"
      ? {
          dx: read("dx"),
          dgamma: read("dgamma"),
          dbeta: read("dbeta"),
          ...(data.z && { dadd: read("dadd") }),
        }
      : { y: read("y") };
  rmSync(files, { recursive: true });
  return {
    answer: () => answer,
    sample: async (calls) => Number(await child.ask(`run ${calls}`)),
    close: () => void child.ask("close"),
  };
}

/**
 * One thread, unless threads.ts asks for more. The other two settings let PyTorch, which makes a new tensor for every
 * result, use the memory of the last one again. It would otherwise ask the system for new memory each time, which takes
 * many times as long.
 */
const environment = () => ({
  OMP_NUM_THREADS: process.env.BENCH_THREADS ?? "1",
  MALLOC_MMAP_MAX_: "0",
  MALLOC_TRIM_THRESHOLD_: String(2 ** 40),
});

class Child {
  private constructor(
    private readonly process: ChildProcessWithoutNullStreams,
    private readonly lines: AsyncIterator<string>,
    readonly greeting: string,
  ) {}

  static async start(program: string, args: string[]): Promise<Child> {
    const child = spawn(program, args, {
      env: { ...process.env, ...environment() },
      stdio: ["pipe", "pipe", "inherit"],
    }) as unknown as ChildProcessWithoutNullStreams;
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const { value, done } = await lines.next();
    if (done) throw new Error(`${program} ended before its first word`);
    return new Child(child, lines, value);
  }

  get pid(): number {
    return this.process.pid!;
  }

  async ask(command: string): Promise<string> {
    this.process.stdin.write(`${command}\n`);
    const { value, done } = await this.lines.next();
    if (done) throw new Error(`the child process ended at: ${command}`);
    const [word, ...rest] = value.split(" ");
    if (word !== "ok") throw new Error(`${this.greeting}: ${value} (at: ${command})`);
    return rest.join(" ");
  }

  end(): void {
    this.process.stdin.end();
  }
}
