// Node 20 runs TypeScript in a worker only if the worker itself loads tsx. The file to run is the
// first argument.
import { tsImport } from "tsx/esm/api";

await tsImport(`./${process.argv[2]}`, import.meta.url);
