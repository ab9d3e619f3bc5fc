/**
 * `npm run demo`, in the repository's root: looks at the flags, which costs no time, then builds the
 * package, installs what the demo needs, and starts it.
 */

import { execSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { readArguments } from "./args.js";

const { steps, seed, learningRate } = readArguments();
const commands = [
  "npm run build",
  "npm ci --prefix examples/mnist --ignore-scripts --no-audit --no-fund",
  "npm start --prefix examples/mnist --silent -- " +
    `--steps ${steps} --seed ${seed} --learning-rate ${learningRate}`,
];
const cwd = fileURLToPath(new URL("../..", import.meta.url));
try {
  for (const command of commands) execSync(command, { cwd, stdio: "inherit" });
} catch (error) {
  process.exitCode = (error as { status: number | null }).status ?? 1; // the command said why
}
