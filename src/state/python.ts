// Objects of Python as a pickle describes them: what they are made of, nothing that they would do.

/** A class or function, by the name that a pickle has for it: `collections.OrderedDict`. */
export class Global {
  readonly path: string;
  constructor(path: string) {
    this.path = path;
  }
}

const DICTS = ["collections.OrderedDict", "builtins.dict", "__builtin__.dict"];

/** A dict, where `type` is null or an OrderedDict, or an object of a class of which nothing is known. */
export class PyObject {
  /** What made it. */
  readonly type: Global | null;
  /** What was set in it by key; `null` while nothing was. */
  items: Map<unknown, unknown> | null = null;
  /** Its attributes, as a dict, where it has any. */
  state: unknown = null;

  constructor(type: Global | null) {
    this.type = type;
  }

  get isDict(): boolean {
    return this.type === null || DICTS.includes(this.type.path);
  }
}
