// How the layers of a Keras model follow each other, in each of its models by itself: one after another
// in a Sequential one, by `inbound_nodes` in a Functional one, a list of calls with the layers
// whose outputs each takes (keras 2, keras/engine/functional.py, get_network_config; tfjs-layers/src/engine/
// container.ts, fromConfig).

import { isCount, isObject } from "../bytes.js";
import type { Json } from "./topology.js";

/** A layer of a model. */
export interface Layer {
  readonly item: Json;
  /** Its options; another object where they are changed. */
  config: Json;
  readonly name: string;
  readonly kind: string;
  readonly container: Container;
}

/** An output of a layer as the input of a call, or, without a user, as an output of the model. */
interface Use {
  of: string;
  readonly rest: readonly unknown[];
  readonly user: Layer | null;
}

/** What stands beside a layer, or why there is none that it could be taken into. */
export type Beside = Layer | { readonly reason: string };

export const isLayer = (beside: Beside): beside is Layer => "config" in beside;

/** One model, its layers in the order of the file. */
export class Container {
  readonly layers: Layer[] = [];
  /** The models that it is in, itself included but for the outermost, from outside. */
  readonly inside: readonly string[];
  readonly #item: Json;
  /** The calls of each layer, `null` in a Sequential model. */
  readonly #calls: Map<Layer, Use[][]> | null;
  readonly #outputs: Use[] = [];
  readonly #uses = new Map<string, Use[]>();
  /** Names in the options of calls, which may stand for layers. */
  readonly #named = new Set<string>();
  /** Why connections are not known, `null` if they are. */
  readonly #unknown: string | null = null;
  #changed = false;

  /** @param items the layers that `item` has. */
  constructor(item: Json, items: readonly unknown[], inside: readonly string[]) {
    this.#item = item;
    this.inside = inside;
    for (const each of items) {
      if (!isObject(each) || !isObject(each.config) || typeof each.class_name !== "string")
        continue;
      const { class_name: kind, config } = each;
      const name = typeof each.name === "string" ? each.name : String(config.name);
      this.layers.push({ item: each, config, name, kind, container: this });
    }
    this.#calls = item.class_name === "Sequential" ? null : new Map();
    if (!this.#read(items.length)) {
      this.#unknown = "the calls of the layers around it are not as Keras 2 writes them";
    }
  }

  /** Reads how layers are connected; false where that is not in the way of Keras 2. */
  #read(count: number): boolean {
    const names = new Set(this.layers.map(({ name }) => name));
    if (this.layers.length !== count || names.size !== count) return false;
    if (this.#calls === null) return true;
    for (const layer of this.layers) {
      const nodes = layer.item.inbound_nodes;
      if (!Array.isArray(nodes)) return false;
      const calls = nodes.map((node) => (Array.isArray(node) ? this.#usesIn(node, layer) : null));
      if (calls.includes(null)) return false;
      this.#calls.set(layer, calls as Use[][]);
    }
    const { output_layers: outputs } = this.#item.config as Json;
    const found = Array.isArray(outputs) ? this.#usesIn(outputs, null) : null;
    if (found === null) return false;
    this.#outputs.push(...found);
    return true;
  }

  /** The uses that are listed as [layer, call, output, options?]; `null` for what is no such list. */
  #usesIn(list: readonly unknown[], user: Layer | null): Use[] | null {
    const uses: Use[] = [];
    for (const entry of list) {
      if (!Array.isArray(entry) || typeof entry[0] !== "string" || !isCount(entry[1])) return null;
      const [of, ...rest] = entry as [string, ...unknown[]];
      const use = { of, rest, user };
      uses.push(use);
      const same = this.#uses.get(of);
      if (same) same.push(use);
      else this.#uses.set(of, [use]);
      for (const options of rest.slice(2)) collectTexts(options, this.#named);
    }
    return uses;
  }

  #find(name: string): Layer | undefined {
    return this.layers.find((layer) => layer.name === name);
  }

  /** The layer whose output is a layer's only input, and is used nowhere else. */
  before(layer: Layer): Beside {
    if (this.#unknown !== null) return { reason: this.#unknown };
    if (this.#calls === null) {
      const found = this.layers[this.layers.indexOf(layer) - 1];
      return found ?? { reason: "nothing stands before it in its model" };
    }
    const input = this.#inputOf(layer);
    if (input === null) return { reason: "it does not have one input, in one call" };
    const found = this.#find(input.of);
    if (found === undefined) return { reason: `"${input.of}" is no layer of its model` };
    const reason = this.#shared(found);
    return reason === null ? found : { reason };
  }

  /** The layer that alone takes a layer's output, as its only input. */
  after(layer: Layer): Beside {
    if (this.#unknown !== null) return { reason: this.#unknown };
    if (this.#calls === null) {
      const found = this.layers[this.layers.indexOf(layer) + 1];
      return found ?? { reason: "nothing stands after it in its model" };
    }
    if (this.#inputOf(layer) === null) return { reason: "it does not have one input, in one call" };
    const reason = this.#shared(layer);
    if (reason !== null) return { reason };
    const found = this.#uses.get(layer.name)?.[0]?.user;
    if (found === undefined || found === null) return { reason: "its output is one of its model" };
    if (this.#inputOf(found) === null) {
      return { reason: `"${found.name}" does not have one input, in one call` };
    }
    return found;
  }

  /** The input of a layer that is called once, on one input; `null` of any other. */
  #inputOf(layer: Layer): Use | null {
    const calls = this.#calls!.get(layer)!;
    const [input] = calls[0] ?? [];
    const alone = calls.length === 1 && calls[0]!.length === 1 && input!.rest[1] === 0;
    return alone ? input! : null;
  }

  /** Why more than one layer has a layer's output, `null` if one has. */
  #shared({ name }: Layer): string | null {
    const uses = this.#uses.get(name) ?? [];
    if (this.#named.has(name)) return `"${name}" is named in the options of a call`;
    if (uses.length > 1) return `the output of "${name}" is used ${uses.length} times`;
    const calls = this.#calls!.get(this.#find(name)!)!;
    return calls.length > 1 ? `"${name}" is called ${calls.length} times` : null;
  }

  /** True where a call of a layer has options that say more than is usual: that it trains, for instance. */
  hasOptions(layer: Layer): boolean {
    const calls = this.#calls?.get(layer) ?? [];
    const options = calls.flat().flatMap(({ rest }) => rest.slice(2));
    return options
      .flatMap((each) => (typeof each === "object" && each !== null ? Object.values(each) : []))
      .some((value) => value !== null && value !== false);
  }

  /** How many axes the outputs of a layer have, `null` if the layers before it do not tell. */
  rankOf(layer: Layer): number | null {
    let at: Layer | undefined = layer;
    for (let steps = this.layers.length; at !== undefined && steps > 0; steps--) {
      const { kind, config } = at;
      const own = ownRank(kind, config);
      if (own !== undefined) return own;
      at =
        this.#unknown !== null
          ? undefined
          : this.#calls === null
            ? this.layers[this.layers.indexOf(at) - 1]
            : this.#find(this.#calls.get(at)![0]?.[0]?.of ?? "");
    }
    return null;
  }

  /** Takes a layer out: what used its output uses that of the layer before it. */
  remove(layer: Layer): void {
    this.#changed = true;
    if (this.#calls !== null) {
      const { of, rest } = this.#inputOf(layer)!;
      const uses = this.#uses.get(layer.name) ?? [];
      const own = this.#uses.get(of)!.filter(({ user }) => user !== layer);
      for (const use of uses) {
        // The call and the output of the layer before; the options are those of the call that stays.
        const other = { of, rest: [...rest.slice(0, 2), ...use.rest.slice(2)], user: use.user };
        this.#replace(use, other);
        own.push(other);
      }
      this.#uses.set(of, own);
      this.#uses.delete(layer.name);
      this.#calls.delete(layer);
    } else if (this.layers[0] === layer && this.layers.length > 1) {
      // The first layer of a Sequential model may say what its input is; the layer keeps the shape.
      const { batch_input_shape: shape, dtype } = layer.config;
      const next = this.layers[1]!;
      if (shape !== undefined) next.config = { ...next.config, batch_input_shape: shape, dtype };
    }
    this.layers.splice(this.layers.indexOf(layer), 1);
  }

  #replace(use: Use, other: Use): void {
    const lists = use.user === null ? [this.#outputs] : this.#calls!.get(use.user)!;
    for (const list of lists) {
      const at = list.indexOf(use);
      if (at !== -1) list[at] = other;
    }
  }

  /** Adds what becomes of the objects in the file to `replaced`. */
  write(replaced: Map<unknown, unknown>): void {
    const items = this.layers.map((layer) => {
      const { item, config } = layer;
      const calls = this.#changed ? this.#calls?.get(layer) : undefined;
      if (config === item.config && calls === undefined) return item;
      const nodes = calls?.map((call) => call.map(({ of, rest }) => [of, ...rest]));
      const other = { ...item, config, ...(nodes && { inbound_nodes: nodes }) };
      replaced.set(item, other);
      return item;
    });
    if (!this.#changed) return;
    const { config } = this.#item;
    const outputs = this.#outputs.map(({ of, rest }) => [of, ...rest]);
    const other = Array.isArray(config)
      ? items
      : { ...(config as Json), layers: items, ...(this.#calls && { output_layers: outputs }) };
    replaced.set(config, other);
  }
}

/** The models of a topology, the outer ones first. */
export function containersOf(topology: unknown): Container[] {
  const containers: Container[] = [];
  // A stack of our own: files may nest deeper than calls do.
  const left: { value: unknown; inside: readonly string[]; top: boolean }[] = [
    { value: topology, inside: [], top: true },
  ];
  const seen = new Set<object>();
  while (left.length > 0) {
    let { value, inside, top } = left.pop()!;
    if (typeof value !== "object" || value === null || seen.has(value)) continue;
    seen.add(value);
    const { class_name: kind, config } = value as Json;
    const name = isObject(config) && typeof config.name === "string" ? config.name : null;
    const items = Array.isArray(config) ? config : isObject(config) ? config.layers : undefined;
    if (typeof kind === "string" && Array.isArray(items)) {
      if (!top && name !== null) inside = [...inside, name];
      top = false;
      containers.push(new Container(value as Json, items, inside));
    } else if (name !== null && isObject((config as Json).layer)) inside = [...inside, name];
    for (const each of Object.values(value)) left.push({ value: each, inside, top });
  }
  return containers;
}

/** Adds all texts in a value, which may be nested, to `texts`. */
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

/** Layers whose outputs have as many axes as their inputs. */
const KEEPS =
  /^(Dense|Activation|ReLU|LeakyReLU|PReLU|ELU|Softmax|ThresholdedReLU|(Spatial|Gaussian|Alpha)?Dropout([123]D)?|GaussianNoise|Masking|(Sync)?BatchNormalization(V[12])?|LayerNormalization|Add|Subtract|Multiply|Average|Maximum|Minimum|Concatenate)$/;

/** How many axes a layer's outputs have by itself, `undefined` as many as its inputs, `null` unknown. */
function ownRank(kind: string, config: Json): number | null | undefined {
  const dimensions = /(?:Conv|Convolution|Pooling|ZeroPadding|Cropping|UpSampling)([123])D/.exec(
    kind,
  );
  if (kind === "Flatten" || (/^Global.*Pooling/.test(kind) && config.keepdims !== true)) return 2;
  if (dimensions !== null) return Number(dimensions[1]) + 2;
  const shape = config.batch_input_shape ?? config.batch_shape;
  if (kind === "InputLayer") return Array.isArray(shape) ? shape.length : null;
  if (!KEEPS.test(kind)) return null;
  return Array.isArray(shape) ? shape.length : undefined;
}
