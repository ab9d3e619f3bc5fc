// The suite in Jest: CommonJS by ts-jest, and ES modules in each environment.

import { join } from "node:path";
import { blockWith } from "./guide.js";
import {
  run as execute,
  MODULES,
  project,
  suite as suiteFor,
  versionOf,
  write,
} from "./project.js";
import { outcomeOf, type Run, suiteFiles, type Trial } from "./trial.js";

const JEST = join(MODULES, "jest/bin/jest.js");
const TS_JEST = join(MODULES, "ts-jest/dist/index.js");

/** Prints a line of JSON for each file of tests: what it logged, and how it failed. */
const REPORTER = `module.exports = class {
  onTestResult(_, { console: logged, failureMessage }) {
    const said = (logged ?? []).map(({ message }) => message);
    process.stdout.write(JSON.stringify({ said, failureMessage }) + "\\n");
  }
};
`;

/** The transform of JavaScript. ts-jest has one, but takes the types of all of it into account. */
const TO_COMMON_JS = `const { transformSync } = require(${JSON.stringify(join(MODULES, "esbuild"))});

module.exports = { process: (code) => transformSync(code, { format: "cjs", target: "es2022" }) };
`;

const TEST = `test("the suite", async () => {
  console.log(JSON.stringify(await run()));
}, 120_000);

test("results are of one realm, whatever their size", async () => {
  const sizes = [4, 511, 512, 100_000];
  const kinds = sizes.map((size) => {
    const x = new Float32Array(size).map((_, i) => i);
    return new BatchNorm(1).train(x).buffer instanceof ArrayBuffer;
  });
  if (kinds.includes(true) && kinds.includes(false)) throw new Error("instanceof ArrayBuffer: " + kinds);
}, 120_000);
`;

interface Options {
  readonly files: Record<string, string>;
  /** Beside what all have, as jest.config.json has it. */
  readonly config: Record<string, unknown>;
  readonly env?: Record<string, string>;
}

/** A project of Jest's. Its name is the trial's behind "Jest, ". */
const jest = (name: string, options: (run: Run) => Options | Promise<Options>): Trial => ({
  name: `Jest, ${name}`,
  tags: ["places", "jest"],
  async run(run) {
    const { files, config, env = {} } = await options(run);
    const folder = await project(`jest-${name.replace(/\W+/g, "-").toLowerCase()}`, {});
    await write(folder, {
      ...files,
      "reporter.cjs": REPORTER,
      "jest.config.json": JSON.stringify({ reporters: ["<rootDir>/reporter.cjs"], ...config }),
    });
    const args = [JEST, "--ci", "--no-cache", "--verbose=false", "--config=jest.config.json"];
    const output = await execute(process.execPath, args, { cwd: folder, env });
    const { said } = JSON.parse(output) as { said: string[] };
    return { version: await versionOf("jest"), outcome: outcomeOf(JSON.parse(said[0]!)) };
  },
});

/** ES modules, which Jest takes with a switch of Node's and without a transform. */
const modules = (name: string, testEnvironment: string): Trial =>
  jest(name, (run) => ({
    files: {
      ...suiteFiles(run),
      "suite.test.js": `import { BatchNorm } from "batchnorm-wasm";
import { run } from "./run.js";

${TEST}`,
    },
    config: { testEnvironment, transform: {} },
    env: { NODE_OPTIONS: "--experimental-vm-modules" },
  }));

/** TypeScript as `ts-jest config:init` and the TypeScript of before 6 have it: CommonJS, no `exports`. */
export const NODE10 = {
  module: "commonjs",
  moduleResolution: "node10",
  target: "es2022",
  strict: true,
  types: [],
};

/** What TypeScript has to know of the suite. */
export const SUITE_TYPES = "export function conformance(...entries: object[]): Promise<object>;\n";

const commonJs = (name: string, testEnvironment: string): Trial =>
  jest(name, async () => ({
    files: {
      "package.json": JSON.stringify({ name: "app", private: true }),
      "tsconfig.json": JSON.stringify({ compilerOptions: NODE10 }),
      "suite.js": await suiteFor("cjs"),
      "suite.d.ts": SUITE_TYPES,
      "to-common-js.cjs": TO_COMMON_JS,
      "suite.test.ts": `import * as library from "batchnorm-wasm";
import * as testTime from "batchnorm-wasm/infer";
import { conformance } from "./suite";

declare const test: (name: string, body: () => Promise<void>, milliseconds: number) => void;
const { BatchNorm } = library;
const run = () => conformance(library, testTime);
${TEST}`,
    },
    config: {
      testEnvironment,
      transform: { "\\.ts$": TS_JEST, "\\.js$": "<rootDir>/to-common-js.cjs" },
      ...JSON.parse(blockWith("transformIgnorePatterns")),
    },
  }));

const JSDOM = join(MODULES, "jest-environment-jsdom");

export const JEST_TRIALS: readonly Trial[] = [
  commonJs("CommonJS, ts-jest", "node"),
  commonJs("CommonJS, jsdom", JSDOM),
  modules("ES modules", "node"),
  modules("jsdom", JSDOM),
  modules("edge-runtime", join(MODULES, "@edge-runtime/jest-environment")),
];
