export function withoutChecks(code: string): string;
export function withShortNames(code: string): Promise<string>;
