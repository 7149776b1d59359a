import { Table } from "./flatbuffer.js";
import { Problem } from "./problem.js";
import { firstText } from "./zip.js";

// The numbers of these and of the fields below are those of TFLite's
// schema.fbs and metadata_schema.fbs.
const TYPES = { 0: "float32", 1: "float16", 3: "uint8", 7: "int16", 9: "int8" };
const NORMALIZATION = 1;

/** What LiteRT.js can feed and read. */
const USABLE = ["float32", "uint8"];

/**
 * Reads what the page must know of an image classifier from its bytes.
 *
 * `mean` and `std` are the NormalizationOptions of its metadata, one number
 * or one a channel: the model takes (pixel - mean) / std. Files without them
 * are given pixels of 0 to 255, and `assumed` is true.
 *
 * @param {Uint8Array} bytes a `.tflite` file.
 * @throws {Problem} it is damaged, or no classifier that runs here.
 */
export async function readClassifier(bytes) {
  const identifier = String.fromCharCode(...bytes.subarray(4, 8));
  if (bytes.length <= 8 || identifier !== "TFL3") {
    throw new Problem("This is no .tflite file.");
  }
  try {
    return await read(bytes);
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new Problem("This .tflite file is damaged or cut off.");
  }
}

async function read(bytes) {
  const model = Table.root(bytes);
  // Weights beyond the end of the file would crash the runtime.
  for (const buffer of model.tables(4)) buffer.bytes(0);
  const graph = model.tables(2)[0];
  const input = end(graph, graph.ints(1), "one picture");
  const output = end(graph, graph.ints(2), "one row of scores");
  const [batch, height, width, channels] = input.shape;
  if (input.shape.length !== 4 || batch !== 1 || channels !== 3) {
    throw new Problem(
      "The model must take one RGB picture (1, height, width, 3). " +
      `This one takes (${input.shape.join(", ")}).`,
    );
  }
  if (output.shape.length !== 2 || output.shape[0] !== 1) {
    throw new Problem(
      "The model must give a score for each class (1, classes). " +
      `This one gives (${output.shape.join(", ")}).`,
    );
  }
  const metadata = readMetadata(model);
  const normalization = readNormalization(metadata);
  return {
    name: metadata?.text(0) ?? "",
    input,
    output,
    height,
    width,
    ...await readLabels(bytes, output.shape[1]),
    mean: normalization?.floats(0) ?? [0],
    std: normalization?.floats(1) ?? [1],
    assumed: normalization === null,
  };
}

function end(graph, indices, wanted) {
  if (indices.length !== 1) {
    throw new Problem(
      `The model must have ${wanted} at this end. It has ${indices.length}.`,
    );
  }
  const table = graph.tables(0)[indices[0]];
  const type = TYPES[table.byte(1)];
  if (!USABLE.includes(type)) {
    throw new Problem(
      `The model has ${type ?? "an unknown type"} at an end, which LiteRT.js ` +
      "does not take. Convert it with --input_dtype uint8 or float32.",
    );
  }
  const quantization = table.table(4);
  return {
    shape: table.ints(0),
    type,
    scale: quantization?.floats(2)[0] ?? 0,
    zeroPoint: quantization?.longs(3)[0] ?? 0,
  };
}

function readMetadata(model) {
  const entry = model.tables(6).find((row) => row.text(0) === "TFLITE_METADATA");
  if (!entry) return null;
  return Table.root(model.tables(4)[entry.int(1)].bytes(0));
}

function readNormalization(metadata) {
  const input = metadata?.tables(3)[0]?.tables(2)[0];
  const unit = input?.tables(4).find((row) => row.byte(0) === NORMALIZATION);
  const options = unit?.table(1) ?? null;
  return options?.floats(0).length && options.floats(1).length ? options : null;
}

async function readLabels(bytes, classes) {
  const text = await firstText(bytes);
  if (text === null) {
    const labels = Array.from({ length: classes }, (_, i) => `class ${i}`);
    return { labels, labelled: false };
  }
  const labels = text.replace(/\r?\n$/, "").split(/\r?\n/);
  if (labels.length !== classes) {
    throw new Problem(
      `The file has ${labels.length} labels for ${classes} classes.`,
    );
  }
  return { labels, labelled: true };
}
