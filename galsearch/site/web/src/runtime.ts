// ONNX Runtime in one thread, loaded when a model is first needed.
import engines from "virtual:engines";
import type * as Ort from "onnxruntime-web/wasm";
import { cached } from "./cache.ts";
import { SiteError, told } from "./errors.ts";
import { Files, inflate, type FileEntry, type Progress } from "./files.ts";

export interface Input {
  data: Float32Array | BigInt64Array | Uint8Array;
  dims: number[];
}

let loading: Promise<typeof Ort> | undefined;

/** Return how many bytes the runtime itself has. */
export function runtimeBytes(): number {
  return engines.onnxWasm?.bytes ?? 0;
}

export function runtimeEntry(): FileEntry {
  return engines.onnxWasm;
}

async function runtime(files: Files, progress?: Progress): Promise<typeof Ort> {
  const [ort, wasm] = await Promise.all([import("onnxruntime-web/wasm"), cached(files, engines.onnxWasm, progress).then(inflate)]);
  ort.env.wasm.numThreads = 1; // more need headers that static hosts do not send
  ort.env.wasm.proxy = false;
  ort.env.wasm.wasmBinary = wasm.buffer;
  ort.env.logLevel = "error";
  return ort;
}

/** One model, ready to run. */
export class Runtime {
  #ort: typeof Ort;
  #session: Ort.InferenceSession;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(ort: typeof Ort, session: Ort.InferenceSession) {
    this.#ort = ort;
    this.#session = session;
  }

  static async load(files: Files, entry: FileEntry, progress?: Progress): Promise<Runtime> {
    loading ??= runtime(files, progress).catch((error) => {
      loading = undefined;
      throw error;
    });
    const [ort, bytes] = await Promise.all([loading, cached(files, entry, progress).then(inflate)]);
    try {
      // "basic": all of it would take longer than it saves, as a visitor asks few questions.
      return new Runtime(ort, await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], graphOptimizationLevel: "basic" }));
    } catch (error) {
      throw new SiteError(`The model cannot be run in this browser (${told(error).slice(0, 200)}). Examples and “More like this” work without it.`);
    }
  }

  /** Run the model on one input and return its output; one run at a time. */
  async run(inputs: Record<string, Input>, output: string): Promise<Float32Array> {
    const feeds: Record<string, Ort.Tensor> = {};
    for (const [name, { data, dims }] of Object.entries(inputs)) {
      feeds[name] = data instanceof BigInt64Array ? new this.#ort.Tensor("int64", data, dims) : data instanceof Uint8Array ? new this.#ort.Tensor("uint8", data, dims) : new this.#ort.Tensor("float32", data, dims);
    }
    const before = this.#turn;
    const run = before.catch(() => {}).then(() => this.#session.run(feeds));
    this.#turn = run;
    const result = (await run)[output]!;
    return Float32Array.from(result.data as Float32Array);
  }
}
