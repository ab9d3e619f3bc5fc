// Zip archives as the tests make them: a plain writer of the published format, apart from the reader
// under test, that can also write what a good one would not.

/** An entry; what is left out is as a good writer has it. */
export interface PlainEntry {
  name: string | Uint8Array;
  data: Uint8Array;
  /** 0 stored, 8 deflated. */
  method?: number;
  flags?: number;
  /** Bytes of padding in the local header's extra field, as PyTorch aligns its tensors. */
  padding?: number;
  /** Instead of the right numbers in the central directory. */
  size?: number;
  packed?: number;
  at?: number;
  /** The extra field of the central directory. */
  extra?: Uint8Array;
}

/** What comes behind the entries, where it is not as a good writer has it. */
export interface PlainEnd {
  /** The records of zip64 too, as PyTorch writes them in any case. */
  zip64?: boolean;
  count?: number;
  length?: number;
  begin?: number;
  comment?: Uint8Array;
}

type Field = readonly [bytes: 2 | 4 | 8, value: number] | Uint8Array;

/** Little-endian numbers and bytes in a row. */
function row(...fields: Field[]): Uint8Array {
  const parts = fields.map((field) => {
    if (field instanceof Uint8Array) return field;
    const [bytes, value] = field;
    const part = new DataView(new ArrayBuffer(8));
    part.setBigUint64(0, BigInt(value), true);
    return new Uint8Array(part.buffer, 0, bytes);
  });
  return new Uint8Array(Buffer.concat(parts));
}

/** An archive, its sizes in the central directory alone, as PyTorch writes it in one go. */
export function zip(entries: readonly PlainEntry[], end: PlainEnd = {}): Uint8Array {
  let archive = new Uint8Array(0);
  let directory = new Uint8Array(0);
  for (const entry of entries) {
    const { data, method = 0, flags = 0x0808, padding = 0, extra = new Uint8Array(0) } = entry;
    const name = typeof entry.name === "string" ? new TextEncoder().encode(entry.name) : entry.name;
    const at = archive.length;
    const both: Field[] = [
      [2, flags],
      [2, method],
      [4, 0],
    ];
    const filler = new Uint8Array(padding).fill(0x5a);
    archive = row(
      archive,
      ...([[4, 0x04034b50], [2, 20], ...both, [4, 0], [4, 0], [4, 0]] as Field[]),
      ...([[2, name.length], [2, padding], name, filler, data] as Field[]),
    ) as Uint8Array<ArrayBuffer>;
    directory = row(
      directory,
      ...([[4, 0x02014b50], [2, 20], [2, 20], ...both, [4, 0]] as Field[]),
      ...([
        [4, entry.packed ?? data.length],
        [4, entry.size ?? data.length],
      ] as Field[]),
      ...([
        [2, name.length],
        [2, extra.length],
        [2, 0],
        [2, 0],
        [2, 0],
        [4, 0],
      ] as Field[]),
      ...([[4, entry.at ?? at], name, extra] as Field[]),
    ) as Uint8Array<ArrayBuffer>;
  }
  const { count = entries.length, length = directory.length, begin = archive.length } = end;
  const { comment = new Uint8Array(0) } = end;
  const at64 = archive.length + directory.length;
  const zip64 = row(
    ...([
      [4, 0x06064b50],
      [8, 44],
      [2, 45],
      [2, 45],
      [4, 0],
      [4, 0],
      [8, count],
    ] as Field[]),
    ...([
      [8, count],
      [8, length],
      [8, begin],
    ] as Field[]),
    ...([
      [4, 0x07064b50],
      [4, 0],
      [8, at64],
      [4, 1],
    ] as Field[]),
  );
  return row(
    archive,
    directory,
    end.zip64 ? zip64 : new Uint8Array(0),
    ...([
      [4, 0x06054b50],
      [2, 0],
      [2, 0],
      [2, Math.min(count, 0xffff)],
      [2, Math.min(count, 0xffff)],
    ] as Field[]),
    ...([
      [4, Math.min(length, 0xffffffff)],
      [4, Math.min(begin, 0xffffffff)],
    ] as Field[]),
    ...([[2, comment.length], comment] as Field[]),
  );
}
