// Tables are asked by names that stand in files, which may be anything.

/**
 * True if a table has a key of its own; what it inherits, such as "constructor", is none. (`Object.hasOwn` says the
 * same, but Firefox has it only from version 92 on.)
 */
export const hasOwn = (table: object, key: PropertyKey): boolean =>
  Object.getOwnPropertyDescriptor(table, key) !== undefined;
