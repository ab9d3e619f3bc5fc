// The files beside a model that hold some of its numbers: the shards of a TensorFlow.js model, the external data
// of an ONNX model. Which of them are needed only the reader of the model knows, so they are read when it asks.

import { CommandError } from "./failure.js";

/** Reads a file beside a model by the path that the model names. Returns `null` if there is none. */
export type ReadBeside = (path: string) => Uint8Array | null;

/** The files beside a model by their paths. Those that were asked for so far are among its keys. */
export type Beside = Readonly<Record<string, Uint8Array>>;

/**
 * An object that reads a file when it is asked for it, and throws CommandError if there is none. The readers ask by
 * `hasOwn`, which calls `getOwnPropertyDescriptor`, before they take the bytes.
 */
export function besideOf(read: ReadBeside): Beside {
  // Without a prototype, so that a path "__proto__" is a key as any other.
  const files: Record<string, Uint8Array> = Object.create(null);
  const fetch = (path: string | symbol): void => {
    if (typeof path === "symbol" || path in files) return;
    const bytes = read(path);
    if (bytes === null) {
      throw new CommandError(
        `the file "${path}", which has some of the model's numbers, is not in its folder: copy it there`,
      );
    }
    files[path] = bytes;
  };
  return new Proxy(files, {
    getOwnPropertyDescriptor(target, path) {
      fetch(path);
      return Reflect.getOwnPropertyDescriptor(target, path);
    },
  });
}

/**
 * True if a path stays inside the folder that it starts from. A model may come from anywhere, so a path in it is
 * not trusted: it could name any file of this machine.
 */
export function staysInside(path: string): boolean {
  const parts = path.split(/[/\\]/);
  return path !== "" && !/^([/\\]|[a-z]:)/i.test(path) && !parts.includes("..") && !/\0/.test(path);
}
