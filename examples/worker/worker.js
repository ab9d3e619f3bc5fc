// A Cloudflare Worker that normalizes a request's features with a frozen layer:
//
//   curl <address> --json '[27, 1006, 50]'

import { FrozenBatchNorm } from "batchnorm-wasm/infer";
import layer from "./layer.json"; // written by examples/deno

const frozen = FrozenBatchNorm.fromJSON(layer);

export default {
  async fetch(request) {
    try {
      const features = Float32Array.from(await request.json());
      return Response.json([...frozen.infer(features)]);
    } catch (error) {
      return Response.json({ error: error.message }, { status: 400 });
    }
  },
};
