// The site, open: everything that a page asks of it.
import { Cards } from "./cards.ts";
import { clean } from "./cache.ts";
import { Cuts } from "./cuts.ts";
import { SiteError } from "./errors.ts";
import { asNumbers, Files, type FileEntry, type Numbers, type Progress } from "./files.ts";
import { Columns, count, maskOf } from "./filters.ts";
import { Lookup } from "./ids.ts";
import type { Chips, Site, Space } from "./manifest.ts";
import { Pictures } from "./pictures.ts";
import type { Query, Term } from "./query.ts";
import { runtimeBytes, runtimeEntry } from "./runtime.ts";
import { combined, type Found, type Mask, VectorSpace } from "./search.ts";
import { Spectra } from "./spectra.ts";
import { Electorate } from "./votes.ts";
import { Words } from "./words.ts";

export interface Answer {
  rows: number[];
  scores: number[] | null; // null for a list
  passing: number; // galaxies that pass the condition
  plan: string;
  weak: number | null; // the first hit that is like nothing much
  milliseconds: number;
  mask: Mask;
}

export class Atlas {
  readonly site: Site;
  readonly files: Files;
  readonly cards: Cards;
  readonly columns: Columns;
  readonly cuts: Cuts;
  readonly words: Words | null;
  readonly pictures: Pictures | null;
  readonly spectra: Spectra | null;
  readonly bases: Electorate[];
  #spaces: Map<string, VectorSpace>;
  #chips = new Map<string, Promise<Float32Array>>();
  #maps = new Map<string, Promise<Numbers>>();
  #lookup: Lookup | null;

  constructor(site: Site, base: string) {
    this.site = site;
    const files = (this.files = new Files(base));
    this.cards = new Cards(files, site);
    this.columns = new Columns(files, site);
    this.cuts = new Cuts(files, site);
    this.words = site.text_encoder && new Words(files, site.text_encoder);
    this.pictures = site.image_encoder && new Pictures(files, site.image_encoder);
    this.spectra = site.spectra && new Spectra(files, site.spectra);
    this.#lookup = site.ids && new Lookup(files, site.ids);
    this.#spaces = new Map(site.spaces.map((space) => [space.name, new VectorSpace(files, space, site.rows)]));
    this.bases = site.knowledge.filter((one) => this.#spaces.has(one.space)).map((one) => new Electorate(files, one, this.#spaces.get(one.space)!, site.rows));
  }

  get main(): Space | null {
    return this.site.spaces[0] ?? null;
  }

  space(name: string | null): VectorSpace {
    const found = this.#spaces.get(name ?? this.main?.name ?? "");
    if (!found) throw new SiteError(name === null ? "This site holds no vectors, so nothing can be compared; filters work." : `This site has no space “${name}”, it has: ${[...this.#spaces.keys()].join(", ")}.`);
    return found;
  }

  chips(space: string | null): Chips | null {
    return this.site.chips[space ?? this.main?.name ?? ""] ?? null;
  }

  /** Return the number of an example that has these words, -1 for none. */
  chip(space: string | null, text: string): number {
    const plain = text.trim().toLowerCase().replace(/\s+/g, " ");
    return this.chips(space)?.phrases.findIndex((phrase) => phrase.toLowerCase() === plain) ?? -1;
  }

  /** Say whether words that are no example can be asked in a space. */
  takesWords(space: string | null): boolean {
    const { name, words } = this.space(space).space;
    const text = this.site.text_encoder;
    return text !== null && words !== null && (text.projectors[name] !== undefined || text.space !== null);
  }

  /** Return the bytes to load before the first free words, and those before the first condition. */
  get loads(): { words: number; sql: number } {
    const { text_encoder: text } = this.site;
    const facts = Math.min(4e6, this.site.facts?.files.reduce((sum, { file }) => sum + file.bytes, 0) ?? 0);
    return { words: text ? runtimeBytes() + text.bytes_total : 0, sql: Cuts.bytes() + facts };
  }

  row(id: string): Promise<number | null> {
    return this.#lookup?.row(id) ?? Promise.resolve(null);
  }

  map(name: string): Promise<Numbers> | null {
    const entry = this.site.maps[name];
    if (!entry) return null;
    let found = this.#maps.get(name);
    if (!found) {
      found = this.files.whole(entry).then((bytes) => asNumbers(bytes, "float32"));
      found.catch(() => this.#maps.delete(name));
      this.#maps.set(name, found);
    }
    return found;
  }

  /** Fetch what the first search needs. */
  prepare(): void {
    if (!this.main) return;
    this.space(null).prepare();
    if (this.chips(null)) this.#chipVectors(this.main.name).catch(() => {});
  }

  /** Let go of what earlier exports left in Cache Storage. */
  clean(): Promise<void> {
    const { text_encoder: text, image_encoder: image } = this.site;
    const entries: (FileEntry | null | undefined)[] = [...Cuts.entries(), runtimeEntry(), text?.body, text?.vocab, text?.embedding_rows.scales, ...Object.values(text?.projectors ?? {}).map((one) => one.body), image?.body];
    return clean(this.files, entries.filter((one) => one != null)).catch(() => {});
  }

  /** Answer a query. */
  async search(query: Query, progress?: Progress): Promise<Answer> {
    const started = performance.now();
    const wait = query.terms.length ? this.#vector(query, progress) : null;
    wait?.catch(() => {});
    const mask = await maskOf(query, this.columns, this.site.rows, (where) => this.cuts.mask(where, progress));
    const passing = count(mask, this.site.rows);
    if (!wait) return { ...this.#listed(query.k, mask, passing), milliseconds: performance.now() - started, mask };
    const vector = await wait;
    const kind = query.terms.length === 1 && query.terms[0]!.kind === "text" ? "words" : "like";
    const space = this.space(query.space);
    const itself = await this.#objects(query); // what a query is about is no answer to it
    const found = without(await space.search(vector, query.k + itself.size, mask, kind), itself, query.k);
    const threshold = query.terms.length === 1 ? (space.space.thresholds?.[kind] ?? null) : null;
    const weak = threshold === null ? -1 : found.scores.findIndex((score) => score < threshold);
    const cells = found.cellsOf ? ` in ${number(found.cells)} of ${number(found.cellsOf)} cells` : "";
    return {
      rows: Array.from(found.rows),
      scores: Array.from(found.scores),
      passing,
      plan: `${number(found.compared)} of ${number(space.vectors)} vectors compared${cells}, ${found.exact ? "exact" : "approximate"}`,
      weak: weak < 0 ? null : weak,
      milliseconds: performance.now() - started,
      mask,
    };
  }

  async #objects(query: Query): Promise<Set<number>> {
    const rows = await Promise.all(query.terms.filter((term) => term.kind === "object").map((term) => this.row(term.value)));
    return new Set(rows.filter((row) => row !== null));
  }

  /** Take what this site does not have out of a query; return what to tell of it. */
  fit(query: Query): string[] {
    const wrong: string[] = [];
    if (query.space !== null && !this.#spaces.has(query.space)) {
      wrong.push(`This site has no space “${query.space.slice(0, 80)}”; the main one is searched.`);
      query.space = null;
    }
    for (const name of Object.keys(query.ranges)) {
      if (this.columns.has(name)) continue;
      wrong.push(`This site has no slider for “${name.slice(0, 80)}”; it is left out.`);
      delete query.ranges[name];
    }
    return wrong;
  }

  #listed(k: number, mask: Mask, passing: number): Omit<Answer, "milliseconds" | "mask"> {
    const rows: number[] = [];
    const { rows: all } = this.site;
    if (mask) for (let row = 0; row < all && rows.length < k; row++) mask[row] && rows.push(row);
    else {
      // A sample from all over the atlas: neighbors in the file look alike. Pairs of neighbors halve the requests.
      const size = Math.min(k, all);
      for (let n = 0; n < size; n++) rows.push(Math.floor((n * all) / size));
    }
    return { rows, scores: null, passing, plan: mask ? "listed in the order of the file" : "a sample from the whole atlas", weak: null };
  }

  async #vector(query: Query, progress?: Progress): Promise<Float32Array> {
    const vectors = await Promise.all(query.terms.map((term) => this.vectorOf(term, query.space, progress)));
    return combined(vectors, query.terms.map((term) => term.weight));
  }

  /** Return the unit vector of one term in a space. */
  async vectorOf(term: Term, name: string | null, progress?: Progress): Promise<Float32Array> {
    const space = this.space(name);
    if (term.kind === "image") {
      if (!term.vector) throw new SiteError("The image of this query is no longer there. Choose it again.");
      return term.vector;
    }
    if (term.kind === "object") {
      const row = await this.row(term.value);
      if (row === null) throw new SiteError(`This site has no object “${term.value}”. Check the id, or choose one of the results.`);
      const vector = await space.vectorOf(row);
      if (!vector) throw new SiteError(`“${term.value}” has no ${space.space.modality} here, so nothing can be like it. Compare by another kind, or choose another object.`);
      return vector;
    }
    const chip = this.chip(name, term.value);
    if (chip >= 0) {
      const all = await this.#chipVectors(space.space.name);
      return all.slice(chip * space.space.dim, (chip + 1) * space.space.dim);
    }
    if (!this.takesWords(name)) throw new SiteError(`This site takes only its examples as words here, and “${term.value}” is none of them. Choose one of the list.`);
    const projector = this.site.text_encoder!.projectors[space.space.name] ? space.space.name : null;
    return this.words!.encode(term.value, projector, progress);
  }

  #chipVectors(space: string): Promise<Float32Array> {
    let found = this.#chips.get(space);
    if (!found) {
      found = this.files.whole(this.site.chips[space]!.vectors).then((bytes) => asNumbers(bytes, "float32"));
      found.catch(() => this.#chips.delete(space));
      this.#chips.set(space, found);
    }
    return found;
  }
}

function without(found: Found, rows: Set<number>, k: number): Found {
  const kept = Array.from(found.rows.keys()).filter((at) => !rows.has(found.rows[at]!)).slice(0, k);
  return { ...found, rows: Uint32Array.from(kept, (at) => found.rows[at]!), scores: Float32Array.from(kept, (at) => found.scores[at]!) };
}

export function number(value: number): string {
  return value.toLocaleString("en");
}

/** Return bytes as a person reads them. */
export function size(bytes: number): string {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}
