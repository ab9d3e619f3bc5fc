// Looks up names that come from files, and counts them. Such a name may be anything, "constructor" too, so a table is asked
// for its own keys alone.

/**
 * True if a table has a key of its own; what it inherits, such as "constructor", is none. (`Object.hasOwn` says the
 * same, but Firefox has it only from version 92 on.)
 */
export const hasOwn = (table: object, key: PropertyKey): boolean =>
  Object.getOwnPropertyDescriptor(table, key) !== undefined;

/** What a table has under a key of its own; undefined if it has no such key. */
export const lookUp = <T>(
  table: Readonly<Record<PropertyKey, T>>,
  key: PropertyKey,
): T | undefined => (hasOwn(table, key) ? table[key] : undefined);

/** How often each name occurs. */
export function timesOf(names: Iterable<string>): Map<string, number> {
  const times = new Map<string, number>();
  for (const name of names) times.set(name, (times.get(name) ?? 0) + 1);
  return times;
}
