import { Problem } from "./problem.js";
import { decode } from "./tensors.js";

const FOLDER = "litert/";

// Loaded when needed, so that its absence is a message on the page.
let litert = null;
let loaded = false;

/** Threads share memory, which browsers allow to isolated pages only. */
export const maxThreads = globalThis.crossOriginIsolated
  ? Math.min(navigator.hardwareConcurrency, 8)
  : 1;

async function load() {
  if (loaded) return;
  try {
    litert ??= await import("@litertjs/core");
    const threads = maxThreads > 1 && await litert.supportsFeature("threads")
      && await litert.supportsFeature("relaxedSimd");
    await litert.loadLiteRt(`${FOLDER}core/wasm/`, { threads });
    loaded = true;
  } catch (error) {
    console.error(error);
    throw new Problem(
      `LiteRT.js could not be loaded from the folder ${FOLDER} of this page. ` +
      "`keras-mobilevit serve_demo` puts it there.",
    );
  }
}

/** A model, ready to run on the CPU. */
export class Session {
  #model;
  #facts;

  constructor(model, facts) {
    this.#model = model;
    this.#facts = facts;
  }

  /** @throws {Problem} LiteRT.js does not take the file. */
  static async open(bytes, facts, threads) {
    await load();
    try {
      const model = await litert.loadAndCompile(bytes, {
        accelerator: "wasm",
        cpuOptions: { numThreads: threads },
      });
      const session = new Session(model, facts);
      // The first run is slower, and some files fail in it only.
      const size = 3 * facts.height * facts.width;
      const zeros = facts.input.type === "uint8"
        ? new Uint8Array(size) : new Float32Array(size);
      await session.run(zeros);
      return session;
    } catch (error) {
      console.error(error);
      forget();
      throw new Problem(
        "LiteRT.js cannot run this file; the browser's console says why.",
      );
    }
  }

  /** Runs the model once; gives the scores and the milliseconds it took. */
  async run(values) {
    const { height, width } = this.#facts;
    const started = performance.now();
    const input = new litert.Tensor(values, [1, height, width, 3]);
    const outputs = await this.#model.run([input]);
    const result = await outputs[0].data();
    const milliseconds = performance.now() - started;
    for (const tensor of [input, ...outputs]) tensor.delete();
    return { scores: decode(result, this.#facts), milliseconds };
  }

  close() {
    this.#model.delete();
  }
}

/** After a crash WebAssembly is of no use; the next file gets a new one. */
function forget() {
  loaded = false;
  try {
    litert.unloadLiteRt();
  } catch (error) {
    console.error(error);
  }
}
