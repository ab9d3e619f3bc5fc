// What all objects that users hold have in common: each says in one line what it is, and none works behind a proxy.
//
// Reactive state (Vue, Pinia, Alpine, valtio) puts a proxy before whatever is stored in it. The private members of a
// class are those of the object alone (ECMA-262, PrivateFieldGet), so every member called on a proxy would fail with a
// TypeError about a private name.

import { StateError } from "../errors.js";

/** What a member throws that is called on a proxy of its object, or on a copy. */
export const notRaw = (): StateError =>
  new StateError("this", "the raw object (toRaw, markRaw, shallowRef)", "a proxy or copy");

/** The base class of what users hold. */
export abstract class Raw {
  /** The object itself. Proxies and copies lack this. */
  readonly #raw: this = inspectable(this);

  /** @internal This object, for members that read private ones. Throws StateError if it is a proxy, or a copy. */
  get itself(): this {
    try {
      return this.#raw;
    } catch {
      throw notRaw();
    }
  }

  /** @internal Vue's mark of what stays outside of its proxies, which its `markRaw` sets. Pinia and Alpine heed it. */
  get __v_skip(): boolean {
    return true;
  }
}

// Done when the first object is made, because bundlers keep a class with a computed member name even if nothing uses it.
function inspectable<T>(object: T): T {
  const prototype = Raw.prototype as object as { [name: symbol]: unknown };
  const key = Symbol.for("nodejs.util.inspect.custom");
  // `Reflect.set` does nothing where the prototype is frozen, as hardened JavaScript has it. Node then shows the object
  // as it shows others.
  prototype[key] ??
    Reflect.set(prototype, key, function (this: unknown): unknown {
      try {
        return String(this);
      } catch {
        // A proxy or a prototype: Node then shows it as it shows other objects.
        return this;
      }
    });
  return object;
}
