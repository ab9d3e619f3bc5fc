// What bench/ uses of onnxruntime-common, -web and -node. See jax.d.ts.

export interface Tensor {
  readonly data: ArrayBufferView;
}

export interface InferenceSession {
  run(feeds: Record<string, Tensor>): Promise<Record<string, Tensor>>;
  release(): Promise<void>;
}

export declare namespace InferenceSession {
  interface SessionOptions {
    executionProviders: string[];
    intraOpNumThreads: number;
    interOpNumThreads: number;
    executionMode: "sequential" | "parallel";
    logSeverityLevel: 0 | 1 | 2 | 3 | 4;
  }
}

export declare const env: { wasm: { numThreads: number } };
