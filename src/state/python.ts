// Objects of Python as a pickle describes them: their type and contents, without any code to run.

/** A class or function of Python, known only by the name in a pickle: `collections.OrderedDict` for instance. */
export class Global {
  readonly path: string;
  constructor(path: string) {
    this.path = path;
  }
}

const DICTS = ["collections.OrderedDict", "builtins.dict", "__builtin__.dict"];

/** A dict, if `isDict` is true; else an object of a class about which nothing is known. */
export class PyObject {
  /** The class or function that made it; `null` for a plain dict. */
  readonly type: Global | null;
  /** The values that were set in it, by key; `null` as long as there are none. */
  items: Map<unknown, unknown> | null = null;
  /** Its attributes, usually as a dict; `null` if it has none. */
  state: unknown = null;

  constructor(type: Global | null) {
    this.type = type;
  }

  get isDict(): boolean {
    return this.type === null || DICTS.includes(this.type.path);
  }
}
