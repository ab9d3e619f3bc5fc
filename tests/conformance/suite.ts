// What the package promises, checked in whatever runtime this runs in: nothing here but ECMAScript,
// and all inputs by exact arithmetic, so that the hash over all results has to be the same everywhere.
// `npm run test:runtimes` runs it in each runtime and out of each bundle, against the packed tarball.

import { Checks, type Outcome } from "./checks.js";
import { type Library, layersOf, type Section, type TestTimeLibrary } from "./section.js";
import { anyRank } from "./sections/any-rank.js";
import { block } from "./sections/block.js";
import { errors } from "./sections/errors.js";
import { inferMask } from "./sections/infer-mask.js";
import { keptBits } from "./sections/kept-bits.js";
import { averages, layouts, options } from "./sections/layer.js";
import { memory, numbers } from "./sections/numbers.js";
import { frozen, snapshots } from "./sections/state.js";
import { calibration, parts, statistics } from "./sections/statistics.js";
import { adaptation, folding } from "./sections/test-time.js";
import { places, shapes, sizes } from "./sections/walks.js";

export type { Outcome } from "./checks.js";

/** In this order, as the hash depends on it. */
const FIRST: Record<string, Section> = {
  shapes,
  sizes,
  places,
  layouts,
  options,
  averages,
  statistics,
  parts,
  calibration,
  adaptation,
  folding,
  frozen,
  snapshots,
  numbers,
  memory,
  errors,
};

/** What came later: a new section goes to the end, so that the hash over those before it stays. */
const LATER: Record<string, Section> = { anyRank, inferMask, block, keptBits };

/** Runs every check. */
export async function conformance(
  library: Library,
  testTime: TestTimeLibrary,
  onProgress: (section: string) => void = () => {},
): Promise<Outcome> {
  const checks = new Checks();
  const run = async (sections: Record<string, Section>): Promise<void> => {
    for (const [name, section] of Object.entries(sections)) {
      onProgress(name);
      await section({ checks, library, testTime, layerOf: layersOf(library) });
    }
  };
  await run(FIRST);
  const { checks: count, hash } = checks;
  await run(LATER);
  return { ...checks.outcome, first: { checks: count, hash } };
}
