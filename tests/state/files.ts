// Files as the tests look into them and make them: plain readers and writers of the published format,
// apart from those under test.

/**
 * A message of Protocol Buffers: fields by number, texts, whole numbers, a float32 as an array of one,
 * bytes or messages.
 */
export type Message = readonly (readonly [
  number,
  string | number | Float32Array | Uint8Array | Message,
])[];

/** The bytes of a message. */
export function protobuf(message: Message): Uint8Array {
  const bytes: number[] = [];
  const varint = (value: number): void => {
    for (let left = value; ; left = Math.floor(left / 128)) {
      bytes.push(left < 128 ? left : (left % 128) + 128);
      if (left < 128) return;
    }
  };
  for (const [number, value] of message) {
    const whole = typeof value === "number";
    if (value instanceof Float32Array) {
      varint(8 * number + 5);
      bytes.push(...new Uint8Array(value.buffer));
      continue;
    }
    varint(8 * number + (whole ? 0 : 2));
    if (whole) varint(value);
    else {
      const inside =
        typeof value === "string"
          ? new TextEncoder().encode(value)
          : value instanceof Uint8Array
            ? value
            : protobuf(value);
      varint(inside.length);
      for (const byte of inside) bytes.push(byte);
    }
  }
  return Uint8Array.from(bytes);
}

export interface PlainTensor {
  dtype: string;
  shape: number[];
  data: Uint8Array;
}

/** A file of any header, as an object or as text, and any bytes after it. */
export function container(header: unknown, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const text = new TextEncoder().encode(
    typeof header === "string" ? header : JSON.stringify(header),
  );
  const bytes = new Uint8Array(8 + text.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(data, 8 + text.length);
  return bytes;
}

/** What a safetensors file holds, if it is valid. */
export function safetensors(bytes: Uint8Array): {
  metadata: Record<string, string>;
  tensors: Map<string, PlainTensor>;
} {
  const { buffer, byteOffset, byteLength } = bytes;
  const length = Number(new DataView(buffer, byteOffset, byteLength).getBigUint64(0, true));
  const { __metadata__: metadata = {}, ...header } = JSON.parse(
    new TextDecoder().decode(bytes.subarray(8, 8 + length)),
  );
  const tensors = new Map<string, PlainTensor>();
  for (const [name, entry] of Object.entries(header)) {
    const { dtype, shape, data_offsets } = entry as PlainTensor & {
      data_offsets: [number, number];
    };
    const data = bytes.slice(8 + length + data_offsets[0], 8 + length + data_offsets[1]);
    tensors.set(name, { dtype, shape, data });
  }
  return { metadata, tensors };
}

/** A file of these tensors. */
safetensors.write = (
  tensors: ReadonlyMap<string, PlainTensor>,
  metadata?: Record<string, string>,
): Uint8Array => {
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  let end = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end + data.length] };
    end += data.length;
  }
  const data = new Uint8Array(end);
  let at = 0;
  for (const tensor of tensors.values()) {
    data.set(tensor.data, at);
    at += tensor.data.length;
  }
  return container(header, data);
};
