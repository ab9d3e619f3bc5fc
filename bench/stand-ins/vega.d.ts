// What bench/ uses of vega and vega-lite. See jax.d.ts.

/** A picture, in Vega-Lite's words. */
export type TopLevelSpec = object;

/** Where warnings go. */
export type Logger = object;

declare const levelOfErrors: number;

export { levelOfErrors as Error };
export declare function logger(level: number): Logger;
export declare function compile(spec: TopLevelSpec, options: { logger: Logger }): { spec: object };
export declare function parse(spec: object): object;
export declare class View {
  constructor(runtime: object, options: { renderer: "none" });
  toSVG(): Promise<string>;
}
