// Measures one row of against.ts in a process of its own: `against-child.ts MODULE CASE OP WAY OTHER_FIRST`
// prints the result as JSON. CASE is an index of CASES.

import { Builds, dataOf, type Way } from "./against.js";
import { CASES, type Op } from "./cases.js";

const [module, index, op, way, otherFirst] = process.argv.slice(2);
const c = CASES[Number(index)];
const builds = await Builds.load(module, otherFirst === "true");
const found = await builds.measure(c, op as Op, way as Way, dataOf(c));
process.stdout.write(JSON.stringify(found));
