import { Problem } from "./problem.js";

const END = 0x06054b50;
const END_SIZE = 22;
const LONGEST_COMMENT = 0xffff;
const STORED = 0;
const DEFLATED = 8;
const LARGEST = 1 << 20;

/**
 * Returns the text of the first `.txt` in the ZIP archive behind a model.
 *
 * That is where TFLite metadata keep the label file.
 *
 * @param {Uint8Array} file the whole file.
 * @returns {Promise<string | null>} null if there is none.
 */
export async function firstText(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const end = findEnd(view);
  if (end < 0) return null;
  const count = view.getUint16(end + 10, true);
  let entry = end - view.getUint32(end + 12, true);
  // Some writers count offsets from the archive, others from the whole file.
  const origin = entry - view.getUint32(end + 16, true);
  for (let i = 0; i < count; i++) {
    const nameLength = view.getUint16(entry + 28, true);
    const name = file.subarray(entry + 46, entry + 46 + nameLength);
    if (new TextDecoder().decode(name).endsWith(".txt")) {
      return decode(await extract(file, view, entry, origin));
    }
    entry += 46 + nameLength + view.getUint16(entry + 30, true)
      + view.getUint16(entry + 32, true);
  }
  return null;
}

function findEnd(view) {
  const last = view.byteLength - END_SIZE;
  for (let at = last; at >= Math.max(0, last - LONGEST_COMMENT); at--) {
    if (view.getUint32(at, true) !== END) continue;
    if (at + view.getUint16(at + 20, true) === last) return at;
  }
  return -1;
}

async function extract(file, view, entry, origin) {
  const method = view.getUint16(entry + 10, true);
  const size = view.getUint32(entry + 20, true);
  const header = origin + view.getUint32(entry + 42, true);
  const start = header + 30 + view.getUint16(header + 26, true)
    + view.getUint16(header + 28, true);
  const packed = file.subarray(start, start + size);
  if (method === STORED) return packed;
  if (method !== DEFLATED) {
    throw new Problem("The label file is packed in a way unknown here.");
  }
  const stream = new Blob([packed]).stream()
    .pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await limited(stream));
}

/** Reads a stream, but no bomb. */
async function limited(stream) {
  const parts = [];
  let size = 0;
  for (const reader = stream.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return new Blob(parts).arrayBuffer();
    size += value.length;
    if (size > LARGEST) {
      throw new Problem("The label file is larger than any list of classes.");
    }
    parts.push(value);
  }
}

function decode(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Problem("The labels in the file are not UTF-8 text.");
  }
}
