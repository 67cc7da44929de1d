// Free words become a vector: WordPiece tokens, their rows of the embedding matrix by range, and the body of the text
// model in ONNX Runtime. It is loaded when words are typed that are no example of the site.
import { inflate, asNumbers, Files, type Progress } from "./files.ts";
import { SiteError } from "./errors.ts";
import type { TextEncoder as Description } from "./manifest.ts";
import { Runtime } from "./runtime.ts";
import { cached } from "./cache.ts";
import { unit } from "./search.ts";
import { Tokenizer } from "./tokens.ts";

interface Loaded {
  tokenizer: Tokenizer;
  body: Runtime;
  scales: Float32Array;
}

/** The text encoder of a site. */
export class Words {
  readonly about: Description;
  #files: Files;
  #ready: Promise<Loaded> | undefined;
  #projectors = new Map<string, Promise<Runtime>>();
  #known = new Map<string, Promise<Float32Array>>();

  constructor(files: Files, about: Description) {
    this.#files = files;
    this.about = about;
  }

  /** Return the unit vector of a text in the space of words, or in another one that has a projector. */
  encode(text: string, projector: string | null, progress?: Progress): Promise<Float32Array> {
    const key = JSON.stringify([text, projector]);
    let found = this.#known.get(key);
    if (!found) {
      found = this.#encode(text, projector, progress);
      this.#known.set(key, found);
      found.catch(() => this.#known.delete(key));
    }
    return found;
  }

  async #encode(text: string, projector: string | null, progress?: Progress): Promise<Float32Array> {
    const { tokenizer, body, scales } = await this.#load(progress);
    const ids = tokenizer.encode(text);
    const { inputs, output, embedding_rows, projectors } = this.about;
    const feed = {
      [inputs.embeddings]: { data: await this.#rows(ids, scales), dims: [1, ids.length, embedding_rows.dim] },
      [inputs.attention_mask]: { data: BigInt64Array.from(ids, () => 1n), dims: [1, ids.length] },
    };
    const vector = await body.run(feed, output);
    if (projector === null) return unit(vector);
    const about = projectors[projector]!;
    return unit(await (await this.#projector(projector, progress)).run({ [about.input]: { data: vector, dims: [1, vector.length] } }, about.output));
  }

  #load(progress?: Progress): Promise<Loaded> {
    return (this.#ready ??= this.#read(progress).catch((error) => {
      this.#ready = undefined;
      throw error;
    }));
  }

  async #read(progress?: Progress): Promise<Loaded> {
    const { about } = this;
    const [vocab, scales, body] = await Promise.all([
      cached(this.#files, about.vocab, progress).then(inflate),
      cached(this.#files, about.embedding_rows.scales, progress),
      Runtime.load(this.#files, about.body, progress),
    ]);
    const pieces: (string | null)[] = JSON.parse(new TextDecoder().decode(vocab));
    return { tokenizer: new Tokenizer(pieces, about), body, scales: asNumbers(scales, "float32") };
  }

  /** Fetch the rows of the embedding matrix that these tokens need. */
  async #rows(ids: number[], scales: Float32Array): Promise<Float32Array> {
    const { file, dim, rows } = this.about.embedding_rows;
    if (ids.some((id) => id >= rows)) throw new SiteError("The words of this site do not fit its text model. Export the site again.");
    const pieces = await this.#files.ranges(file, ids.map((id) => ({ from: id * dim, to: (id + 1) * dim })), 2048);
    const result = new Float32Array(ids.length * dim);
    pieces.forEach((piece, n) => asNumbers(piece, "int8").forEach((value, i) => (result[n * dim + i] = value * scales[ids[n]!]!)));
    return result;
  }

  #projector(name: string, progress?: Progress): Promise<Runtime> {
    let found = this.#projectors.get(name);
    if (!found) {
      found = Runtime.load(this.#files, this.about.projectors[name]!.body, progress);
      found.catch(() => this.#projectors.delete(name));
      this.#projectors.set(name, found);
    }
    return found;
  }
}
