// A Cloudflare Worker that normalizes a request's features with a frozen layer:
//
//   npm install && npm start          (wrangler needs Node 22 or later)
//   curl localhost:8787 --json '[27, 1006, 50]'
//   [1.5753147602081299,-1.7853554487228394,-1.575314998626709]
//
// Until batchnorm-wasm is in the registry: `npm ci && npm pack` in the repository's root, then here
// `npm install ../../batchnorm-wasm-0.1.0.tgz`.

import { FrozenBatchNorm } from "batchnorm-wasm/infer";
import layer from "./layer.json"; // written by examples/deno

const frozen = FrozenBatchNorm.fromJSON(layer);

// Not Number.isFinite(value) alone: 1e39 is finite, but as a float32 it is Infinity.
const isFloat32 = (value) => typeof value === "number" && Number.isFinite(Math.fround(value));

export default {
  async fetch(request) {
    try {
      const features = await request.json(); // of one example, or of several in a row
      if (!Array.isArray(features) || !features.every(isFloat32)) {
        throw new TypeError("expected an array of float32 numbers");
      }
      const y = frozen.infer(Float32Array.from(features));
      if (!y.every(Number.isFinite)) throw new RangeError("expected smaller numbers");
      return Response.json([...y]);
    } catch (error) {
      return Response.json({ error: error.message }, { status: 400 });
    }
  },
};
