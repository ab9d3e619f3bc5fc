// Words and numbers as a terminal shows them.

/** A number without the digits that come from rounding to float32: seven digits. */
export const tidy = (value: number): number => Number(value.toPrecision(7));

/** A number in few characters: `0.001`, `1e-5`, `3.14`. */
export function short(value: number, digits = 7): string {
  const rounded = Number(value.toPrecision(digits));
  const size = Math.abs(rounded);
  if (size === 0 || (size >= 1e-3 && size < 1e6)) return String(rounded);
  return rounded.toExponential().replace("+", "");
}

/** Bytes for people: `512 bytes`, `1.4 MB`. */
export function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} bytes`;
  const unit = bytes < 1e6 ? 1e3 : bytes < 1e9 ? 1e6 : 1e9;
  return `${(bytes / unit).toFixed(1)} ${unit === 1e3 ? "kB" : unit === 1e6 ? "MB" : "GB"}`;
}

/** A number with its noun: `1 layer`, `1,234 layers`. */
export const counted = (count: number, noun: string): string =>
  `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;

/**
 * Characters that make a terminal do something instead of showing something, and those that change the direction
 * of writing. The names in a file may have any, so they are shown by their numbers.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const COMMANDS = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** A text from a file, safe to print in a line. */
export const plain = (text: string): string =>
  text.replace(COMMANDS, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Takes characters out of the middle of a text that is too long: both ends of a layer's name tell it apart. */
export function shorten(text: string, width: number): string {
  if (text.length <= width) return text;
  const end = Math.ceil((width - 1) * 0.6);
  return `${text.slice(0, width - 1 - end)}…${text.slice(text.length - end)}`;
}

/** Breaks a text into lines at its spaces. Lines after the first are indented by `indent`. */
export function wrap(text: string, width: number, indent = ""): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    const start = lines.length > 0 && line === "" ? indent : line === "" ? "" : `${line} `;
    if (line !== "" && start.length + word.length > width) {
      lines.push(line);
      line = indent + word;
    } else line = start + word;
  }
  return [...lines, line].join("\n");
}
