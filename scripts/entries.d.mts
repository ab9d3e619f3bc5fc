export const ENTRIES: readonly string[];
export function specifierOf(entry: string): string;
export const BINARIES: readonly string[];
