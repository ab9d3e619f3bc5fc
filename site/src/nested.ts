// Workers whose programs make workers of their own, as `startKernels` does. Firefox (seen in 153) blocks about one in 200
// of these for good, inside of `new Worker`, whatever the two scripts are. Therefore such a worker tells the page when it
// makes another, and the page ends one that is blocked, and begins again.

/** That a program begins to make a worker, or has made it. */
export interface Opening {
  readonly opening: boolean;
}

/** Milliseconds that it may take to make a worker. It took less than 100 whenever it was not blocked. */
const OPENING = 3000;

/** What happens in a worker. */
export interface Listener<Answer> {
  /** It begins, for the first time or once more. */
  begin(): void;
  hear(answer: Answer): void;
  /** Its script cannot be loaded, or failed. */
  fail(message: string): void;
}

/** In a worker: tells the page of each worker that is made from now on. */
export function tellOpenings(): void {
  const tell = (opening: boolean): void => postMessage({ opening } satisfies Opening);
  globalThis.Worker = class extends globalThis.Worker {
    constructor(...about: ConstructorParameters<typeof Worker>) {
      tell(true);
      try {
        super(...about);
      } finally {
        tell(false);
      }
    }
  };
}

/** In a page: makes a worker and sends it a wish. Returns what ends it. */
export function open<Wish, Answer extends object>(
  make: () => Worker,
  wish: Wish,
  { begin, hear, fail }: Listener<Answer>,
): () => void {
  let worker: Worker;
  let blocked: ReturnType<typeof setTimeout> | undefined;
  const end = (): void => {
    clearTimeout(blocked);
    worker.terminate();
  };
  const start = (): void => {
    worker = make();
    worker.addEventListener("error", ({ message }) => fail(message));
    worker.addEventListener("message", ({ data }: MessageEvent<Answer | Opening>) => {
      if (!("opening" in data)) return hear(data);
      clearTimeout(blocked);
      if (data.opening) blocked = setTimeout(again, OPENING);
    });
    worker.postMessage(wish);
    begin();
  };
  const again = (): void => {
    end();
    start();
  };
  start();
  return end;
}
