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

export default {
  async fetch(request) {
    try {
      const features = await request.json(); // of one example, or of several in a row
      if (!Array.isArray(features) || !features.every(Number.isFinite)) {
        throw new TypeError("expected an array of numbers");
      }
      return Response.json([...frozen.infer(Float32Array.from(features))]);
    } catch (error) {
      return Response.json({ error: error.message }, { status: 400 });
    }
  },
};
