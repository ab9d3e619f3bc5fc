// Knows how the layers of a Keras model follow each other. Each model within the model is looked at by
// itself. In a Sequential model, each layer takes the output of the one before it. In a Functional model,
// each layer lists its calls in `inbound_nodes`, with the outputs that each call takes (keras 2,
// keras/engine/functional.py, get_network_config; tfjs-layers/src/engine/container.ts, fromConfig). TimeDistributed
// applies the layer that it wraps at each step, and counts as that layer (tfjs-layers/src/layers/wrappers.ts).

import { StateError } from "../../errors.js";
import { isCount, isObject } from "../bytes.js";
import { type Json, placesIn } from "./topology.js";

/** A layer of a model. */
export interface Layer {
  /** What the model lists: the layer or, if it is in TimeDistributed, this wrapper. */
  readonly item: Json;
  /** The layer itself, which is `item` unless it is in TimeDistributed. */
  readonly inner: Json;
  /** How many axes of its input the layer does not see: that of time if it is in TimeDistributed, else none. */
  readonly timed: 0 | 1;
  /** Its options. To change them, another object is put here, since the file's own must stay the same. */
  config: Json;
  /** The options of `item`, or those of a layer before it that was taken out: they may state the input's shape. */
  input: Json;
  /** The name by which the model knows it. */
  readonly name: string;
  readonly kind: string;
  readonly container: Container;
  /** Its calls, each a list of the call's inputs. */
  readonly calls: Use[][];
}

/** A use of a layer's output: as an input of a call of `user` or, if that is null, as an output of the model. */
interface Use {
  /** The name of the layer whose output it is, "" for the input of a Sequential model. */
  of: string;
  /** The number of that layer's call, the number of the output in it, and the options of the user's call. */
  rest: readonly unknown[];
  readonly user: Layer | null;
}

/** A layer as the JSON lists it. */
interface Listed extends Json {
  readonly class_name: string;
  readonly config: Json;
}

const isLayer = (value: unknown): value is Listed =>
  isObject(value) && isObject(value.config) && typeof value.class_name === "string";

/** One model with its layers, which is the outermost model or one inside of it. */
export class Container {
  /** In the order of the file. */
  readonly layers: Layer[] = [];
  /**
   * The names of the models around it and its own, from outside. The outermost model is left out, since its
   * name is not part of the names of weights.
   */
  readonly inside: readonly string[];
  readonly #item: Json;
  readonly #sequential: boolean;
  readonly #byName = new Map<string, Layer>();
  readonly #outputs: Use[] = [];
  readonly #uses = new Map<string, Use[]>();
  /** All texts in the options of calls. They may be names of layers whose outputs the call takes. */
  readonly #named = new Set<string>();
  /** False if the file does not say how layers are connected in the way of Keras 2. */
  readonly #known: boolean;
  #changed = false;

  /** @param items the layers that the JSON of the model, `item`, lists. */
  constructor(item: Json, items: readonly unknown[], inside: readonly string[]) {
    this.#item = item;
    this.inside = inside;
    this.#sequential = item.class_name === "Sequential";
    for (const each of items) {
      if (!isLayer(each)) continue;
      const { class_name, config: input } = each;
      const name = String(each.name ?? input.name);
      const timed = class_name === "TimeDistributed" && isLayer(input.layer) ? 1 : 0;
      const inner = (timed ? input.layer : each) as Listed;
      const { class_name: kind, config } = inner;
      const place = { item: each, inner, timed, input, container: this } as const;
      const layer: Layer = { ...place, config, name, kind, calls: [] };
      this.layers.push(layer);
      this.#byName.set(name, layer);
    }
    this.#known = this.#byName.size === items.length && this.#read();
  }

  /** Reads how layers are connected. Returns false if it is not written in the way of Keras 2. */
  #read(): boolean {
    let last = "";
    for (const layer of this.layers) {
      const { inbound_nodes } = layer.item;
      const nodes = this.#sequential ? [[[last, 0, 0]]] : inbound_nodes;
      if (!Array.isArray(nodes) || !nodes.every((node) => this.#add(node, layer))) return false;
      last = layer.name;
    }
    const { output_layers } = this.#item.config as Json;
    return this.#add(this.#sequential ? [[last, 0, 0]] : output_layers, null);
  }

  /**
   * Adds a call of a layer, or without a user the outputs of the model. Returns false if `list` is no list of
   * outputs of layers.
   */
  #add(list: unknown, user: Layer | null): boolean {
    if (!Array.isArray(list)) return false;
    const uses: Use[] = [];
    for (const entry of list) {
      if (!Array.isArray(entry) || typeof entry[0] !== "string" || !isCount(entry[1])) return false;
      const [of, ...rest] = entry as [string, ...unknown[]];
      const use = { of, rest, user };
      uses.push(use);
      this.#usesOf(of).push(use);
      collectTexts(rest.slice(2), this.#named);
    }
    if (user === null) this.#outputs.push(...uses);
    else user.calls.push(uses);
    return true;
  }

  #usesOf(name: string): Use[] {
    const uses = this.#uses.get(name) ?? [];
    this.#uses.set(name, uses);
    return uses;
  }

  /**
   * The layer before a layer: its output is that layer's only input, and is used nowhere else. Layers that change
   * nothing at test time are passed over.
   *
   * @throws StateError that says why there is none.
   */
  before(layer: Layer): Layer {
    let found = layer;
    do {
      const next = this.#byName.get(this.#inputOf(found).of);
      if (next === undefined) throw new StateError("nothing stands before it");
      this.#checkAlone(next);
      found = next;
    } while (passesOn(found));
    return found;
  }

  /**
   * The layer that alone takes a layer's output, and has no other input.
   *
   * @throws StateError that says why there is none.
   */
  next(layer: Layer): Layer {
    this.#inputOf(layer);
    this.#checkAlone(layer);
    const user = this.#usesOf(layer.name)[0]?.user ?? null;
    if (user === null) throw new StateError("nothing stands behind it");
    this.#inputOf(user);
    return user;
  }

  /**
   * The layer after a layer, as `next`. Layers that change nothing at test time are passed over.
   *
   * @throws StateError as `next`.
   */
  after(layer: Layer): Layer {
    let found = layer;
    do found = this.next(found);
    while (passesOn(found));
    return found;
  }

  /** The input of a layer. Throws unless the layer is called once, and with one input. */
  #inputOf({ name, calls }: Layer): Use {
    if (!this.#known) throw new StateError("the calls of layers are not as Keras 2 writes them");
    const [input, ...others] = calls.flat();
    if (calls.length === 1 && input?.rest[1] === 0 && others.length === 0) return input;
    throw new StateError(`"${name}" does not have one input, in one call`);
  }

  /** Throws if a layer's output has more than one user. */
  #checkAlone({ name, calls }: Layer): void {
    if (this.#named.has(name)) {
      throw new StateError(`"${name}" is named in the options of a call`);
    }
    const times = Math.max(calls.length, this.#usesOf(name).length);
    if (times > 1) throw new StateError(`the output of "${name}" is used ${times} times`);
  }

  /** True if a call of a layer has an option that is neither null nor false, such as `training: true`. */
  static hasOptions({ calls }: Layer): boolean {
    const options = calls.flat().flatMap(({ rest }) => rest.slice(2));
    return options
      .flatMap((each) => (isObject(each) ? Object.values(each) : []))
      .some((value) => value !== null && value !== false);
  }

  /** All layers, each behind the layer that its first input comes from. */
  inOrder(): Layer[] {
    const sorted = new Set<Layer>();
    for (const layer of this.layers) {
      const row = new Set<Layer>();
      let at: Layer | undefined = layer;
      while (at !== undefined && !sorted.has(at) && !row.has(at)) {
        row.add(at);
        at = this.#inputLayer(at);
      }
      for (const each of [...row].reverse()) sorted.add(each);
    }
    return [...sorted];
  }

  /** The layer that the first input of a layer's first call comes from. */
  #inputLayer({ calls }: Layer): Layer | undefined {
    return this.#byName.get(calls[0]?.[0]?.of ?? "");
  }

  /** How many axes a layer's output has; `null` if neither the layer nor those before it tell. */
  rankOf(layer: Layer): number | null {
    let at: Layer | undefined = layer;
    for (let steps = this.layers.length; at !== undefined && steps > 0; steps--) {
      const own = ownRank(at);
      if (own !== undefined) return own;
      at = this.#inputLayer(at);
    }
    return null;
  }

  /** Takes out a layer that has one input. What used the layer's output uses that input instead. */
  remove(layer: Layer): void {
    this.#changed = true;
    const { of, rest } = layer.calls[0]![0]!;
    const own = this.#usesOf(of).filter(({ user }) => user !== layer);
    for (const use of this.#usesOf(layer.name)) {
      // The numbers of call and output are those of the layer before; the options stay the user's own.
      use.rest = [...rest.slice(0, 2), ...use.rest.slice(2)];
      use.of = of;
      own.push(use);
      // The first layer of a Sequential model states the input's shape: hand it on to the next layer.
      const { input } = layer;
      const { user } = use;
      if (this.#sequential && user !== null && input.batch_input_shape !== undefined) {
        user.input = input;
      }
    }
    this.#uses.set(of, own);
    this.layers.splice(this.layers.indexOf(layer), 1);
  }

  /** Adds to `replaced` the objects of the file that have changed, each with what to write in its place. */
  write(replaced: Map<unknown, unknown>): void {
    const listOf = (uses: readonly Use[]) => uses.map(({ of, rest }) => [of, ...rest]);
    const connected = this.#changed && !this.#sequential;
    for (const { item, inner, timed, config, input, calls } of this.layers) {
      const nodes = connected ? { inbound_nodes: calls.map(listOf) } : {};
      let own = item.config as Json;
      if (config !== inner.config) own = timed ? { ...own, layer: { ...inner, config } } : config;
      if (input !== item.config) {
        const { batch_input_shape, dtype } = input;
        own = { ...own, batch_input_shape, dtype };
      }
      if (connected || own !== item.config) replaced.set(item, { ...item, config: own, ...nodes });
    }
    if (!this.#changed) return;
    const { config } = this.#item;
    const layers = this.layers.map(({ item }) => item);
    const outputs = connected ? { output_layers: listOf(this.#outputs) } : {};
    const other = { ...(config as Json), layers, ...outputs };
    replaced.set(config, Array.isArray(config) ? layers : other);
  }
}

/** All models in a topology, each before those that are inside of it. */
export function containersOf(topology: unknown): Container[] {
  const containers: Container[] = [];
  for (const { item, layers, within } of placesIn(topology)) {
    if (layers !== null) containers.push(new Container(item, layers, within));
  }
  return containers;
}

/** Adds to `texts` all strings in a value, however deep they are nested. */
function collectTexts(value: unknown, texts: Set<string>): void {
  const left = [value];
  while (left.length > 0) {
    const each = left.pop();
    if (typeof each === "string") texts.add(each);
    else if (typeof each === "object" && each !== null) {
      for (const inner of Object.values(each)) left.push(inner);
    }
  }
}

/** Matches Keras' own layers that change nothing at test time. Another kind of dropout may work there too. */
const PASSING =
  /^((Alpha|Gaussian)?Dropout|SpatialDropout[123]D|GaussianNoise|ActivityRegularization)$/;

/** True for a layer whose output is its input at test time. */
const passesOn = (layer: Layer): boolean =>
  (PASSING.test(layer.kind) ||
    (layer.kind === "Activation" && layer.config.activation === "linear")) &&
  !Container.hasOptions(layer);

/** Matches the layers whose outputs have as many axes as their inputs. */
const KEEPS =
  /^(Dense|Activation|\w*ReLU|ELU|Softmax|\w*Dropout([123]D)?|GaussianNoise|Masking|(Sync|Layer|Batch)+Normalization(V[12])?|Add|Subtract|Multiply|Average|Maximum|Minimum|Concatenate)$/;

/**
 * How many axes a layer's output has as far as the layer itself tells. `undefined` if it has as many as the
 * input, and `null` if it is not known.
 */
function ownRank({ kind, config, timed, input }: Layer): number | null | undefined {
  if (kind === "Flatten" || (/^Global.*Pooling/.test(kind) && config.keepdims !== true)) {
    return 2 + timed;
  }
  const axes = /(?:Conv|Pooling|ZeroPadding|Cropping|UpSampling)([123])D/.exec(kind);
  if (axes !== null) return Number(axes[1]) + 2 + timed;
  const shape = input.batch_input_shape ?? input.batch_shape;
  const keeps = KEEPS.test(kind);
  if (Array.isArray(shape) && (keeps || kind === "InputLayer")) return shape.length;
  return keeps ? undefined : null;
}
