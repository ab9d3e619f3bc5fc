/**
 * How threads that work on one mini-batch tell each other what they found: everyone gives a value,
 * everyone gets the values of all, in the order of the threads. Values go as structured clones, by
 * `postMessage`; the wait is synchronous, so that it fits into the middle of a gradient.
 */

import { MessageChannel, type MessagePort, receiveMessageOnPort } from "node:worker_threads";

/** What one thread needs to take part; goes to it as `workerData`, the ports in `transferList`. */
export interface Seat {
  readonly index: number;
  /** To each other thread, `null` at one's own place. */
  readonly ports: readonly (MessagePort | null)[];
  /** Messages sent by each thread so far: what the others wait on. */
  readonly sent: Int32Array;
}

/** A table of `count` seats, each connected with each. */
export function seats(count: number): Seat[] {
  const sent = new Int32Array(new SharedArrayBuffer(4 * count));
  const ports = Array.from({ length: count }, () =>
    new Array<MessagePort | null>(count).fill(null),
  );
  for (let a = 0; a < count; a++) {
    for (let b = 0; b < a; b++) {
      const { port1, port2 } = new MessageChannel();
      ports[a][b] = port1;
      ports[b][a] = port2;
    }
  }
  return ports.map((row, index) => ({ index, ports: row, sent }));
}

export class Exchange {
  readonly #seat: Seat;

  constructor(seat: Seat) {
    this.#seat = seat;
  }

  /** Gives `own`, waits, returns what all gave; one's own as it is, the others' as clones. */
  all<T>(own: T): T[] {
    const { index, ports, sent } = this.#seat;
    for (const port of ports) port?.postMessage(own);
    Atomics.add(sent, index, 1);
    Atomics.notify(sent, index);
    return ports.map((port, other) => (port === null ? own : (this.#next(port, other) as T)));
  }

  #next(port: MessagePort, other: number): unknown {
    for (;;) {
      const before = Atomics.load(this.#seat.sent, other);
      const received = receiveMessageOnPort(port);
      if (received !== undefined) return received.message;
      Atomics.wait(this.#seat.sent, other, before);
    }
  }

  close(): void {
    for (const port of this.#seat.ports) port?.close();
  }
}
