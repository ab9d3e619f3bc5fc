export const ENTRIES: readonly string[];
export function specifierOf(entry: string): string;
export const SHOWN: {
  readonly excludeInternal: true;
  readonly excludePrivate: true;
  readonly excludeExternals: true;
  readonly disableSources: true;
};
export function nameModules(modules: readonly { name: string }[]): void;
export const BINARIES: readonly string[];
