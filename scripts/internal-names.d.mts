export declare const PROPERTIES: readonly string[];
export declare const HIDDEN: readonly string[];
export declare const shortNames: (kernels: readonly string[]) => Record<string, string>;
