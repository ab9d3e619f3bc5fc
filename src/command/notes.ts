// What the readers say about layers, put together for people: of a hundred layers they say the same.

import { counted } from "./text.js";

/** A layer, and what its reader said about it. */
interface Said {
  readonly name: string;
  readonly warnings: readonly string[];
}

/** Every sentence once, after the names of the layers that it is about. */
export function notesOn(layers: readonly Said[]): string[] {
  const names = new Map<string, string[]>();
  for (const { name, warnings } of layers) {
    for (const warning of warnings) {
      // Without the layer at its beginning: module "bn1": has …
      const sentence = warning.replace(/^\w+ "[^"]*": /, "");
      const said = names.get(sentence);
      if (said === undefined) names.set(sentence, [name]);
      else said.push(name);
    }
  }
  return [...names].map(([sentence, [first, ...more]]) => {
    const rest = more.length > 0 ? ` and ${counted(more.length, "other layer")}` : "";
    return `${first}${rest}: ${sentence}`;
  });
}
