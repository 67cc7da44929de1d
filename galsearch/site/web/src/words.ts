// Free words become a vector: WordPiece tokens, their rows of the embedding matrix by range, and the body of the text
// model in ONNX Runtime. It is loaded when words are typed that are no example of the site.
import { inflate, asNumbers, Files, type Progress } from "./files.ts";
import { SiteError } from "./errors.ts";
import type { TextEncoder as Description, Tokens } from "./manifest.ts";
import { Runtime } from "./runtime.ts";
import { cached } from "./cache.ts";
import { unit } from "./search.ts";

/** A BERT WordPiece tokenizer: the same tokens as those that the model was trained with. */
export class Tokenizer {
  #ids: Map<string, number>;
  #about: Pick<Description, "tokenizer" | "max_tokens" | "max_characters">;
  #added: RegExp | null;

  /** `vocab` has the pieces by number, null for gaps. */
  constructor(vocab: (string | null)[], about: Pick<Description, "tokenizer" | "max_tokens" | "max_characters">) {
    this.#ids = new Map();
    vocab.forEach((piece, id) => piece !== null && this.#ids.set(piece, id));
    this.#about = about;
    const added = Object.keys(about.tokenizer.added_tokens).sort((a, b) => b.length - a.length);
    this.#added = added.length ? new RegExp(`(${added.map((one) => one.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`) : null;
  }

  /** Return the ids of a text, with what comes first and last, cut at the most tokens that the model takes. */
  encode(text: string): number[] {
    const { tokenizer, max_tokens, max_characters } = this.#about;
    const cut = Array.from(text).slice(0, max_characters).join("");
    const ids: number[] = [];
    for (const piece of this.#added ? cut.split(this.#added) : [cut]) {
      if (Object.hasOwn(tokenizer.added_tokens, piece)) ids.push(tokenizer.added_tokens[piece]!);
      else for (const word of plainWords(piece, tokenizer)) ids.push(...this.#pieces(word));
    }
    return [...tokenizer.first, ...ids.slice(0, max_tokens - tokenizer.first.length - tokenizer.last.length), ...tokenizer.last];
  }

  /** Part a word into the longest pieces that are known, from its start; a word that has another is unknown as a whole. */
  #pieces(word: string): number[] {
    const { unknown, prefix, max_characters_per_word } = this.#about.tokenizer;
    const signs = Array.from(word);
    const none = [this.#ids.get(unknown)!];
    if (signs.length > max_characters_per_word) return none;
    const found: number[] = [];
    for (let from = 0; from < signs.length; ) {
      let to = signs.length;
      let id: number | undefined;
      for (; to > from; to--) {
        id = this.#ids.get((from ? prefix : "") + signs.slice(from, to).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return none;
      found.push(id);
      from = to;
    }
    return found;
  }
}

/** Clean a text, take accents off, and part it at white space and around each punctuation mark. */
export function plainWords(text: string, about: Tokens): string[] {
  let clean = "";
  for (const sign of text) {
    if (about.clean_text) {
      if (sign === "\0" || sign === "\ufffd") continue;
      if (/^[\t\n\r\p{White_Space}]$/u.test(sign)) {
        clean += " ";
        continue;
      }
      if (/^[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Cs}]$/u.test(sign)) continue;
    }
    clean += about.handle_chinese_chars && isChinese(sign.codePointAt(0)!) ? ` ${sign} ` : sign;
  }
  if (about.strip_accents ?? about.lowercase) clean = clean.normalize("NFD").replace(/\p{Mn}/gu, "");
  if (about.lowercase) clean = Array.from(clean, (sign) => sign.toLowerCase()).join(""); // each by itself, as there
  return clean.match(/[!-/:-@[-`{-~\p{P}]|[^\s!-/:-@[-`{-~\p{P}]+/gu) ?? [];
}

function isChinese(code: number): boolean {
  return (
    (code >= 0x4e00 && code <= 0x9fff) || (code >= 0x3400 && code <= 0x4dbf) || (code >= 0x20000 && code <= 0x2a6df) || (code >= 0x2a700 && code <= 0x2b73f) ||
    (code >= 0x2b740 && code <= 0x2b81f) || (code >= 0x2b920 && code <= 0x2ceaf) || (code >= 0xf900 && code <= 0xfaff) || (code >= 0x2f800 && code <= 0x2fa1f)
  );
}

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
