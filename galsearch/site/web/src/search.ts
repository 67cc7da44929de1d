// Nearest neighbors over int8 codes in typed arrays: all of them where there are few, the closest cells by byte range
// where there are many. The best are scored again with the residuals of their codes.
import { SiteError } from "./errors.ts";
import { asNumbers, Files, Pages, type Span } from "./files.ts";
import type { Space } from "./manifest.ts";

const CELL_CACHE_BYTES = 96e6;
const MOST_BYTES = 24e6; // of codes read for one search; what a condition leaves may lie anywhere
const GAP_BYTES = 4096;
const SCALES_BYTES = 4e6; // below it all scales are read at once: a request less for each cell
const KEPT_SHARE = 0.7; // of a cell; what is less is read for one search and not kept

/** Which galaxies may be found: a byte each, 0 for no; null for all. */
export type Mask = Uint8Array | null;

export interface Found {
  rows: Uint32Array; // of galaxies, best first
  scores: Float32Array;
  compared: number;
  cells: number; // probed, of `cellsOf`; 0 where all vectors were compared
  cellsOf: number;
  exact: boolean;
}

/** The best `k` of a stream of (vector, score), best first; of equal scores the lower number first. */
export class Best {
  readonly ids: Uint32Array;
  readonly scores: Float64Array;
  size = 0;
  #k: number;

  constructor(k: number) {
    this.#k = k;
    this.ids = new Uint32Array(k);
    this.scores = new Float64Array(k);
  }

  /** Scores below this are not among the best any more. */
  get floor(): number {
    return this.size < this.#k ? -Infinity : this.scores[0]!;
  }

  /** A heap with the worst on top. */
  push(id: number, score: number): void {
    if (this.size < this.#k) {
      let at = this.size++;
      for (; at > 0; ) {
        const up = (at - 1) >> 1;
        if (!this.#worse(score, id, up)) break;
        this.#move(up, at);
        at = up;
      }
      this.ids[at] = id;
      this.scores[at] = score;
      return;
    }
    if (this.#k === 0 || this.#worse(score, id, 0) || (score === this.scores[0] && id === this.ids[0])) return;
    let at = 0;
    for (;;) {
      let down = 2 * at + 1;
      if (down >= this.size) break;
      if (down + 1 < this.size && this.#worse(this.scores[down + 1]!, this.ids[down + 1]!, down)) down++;
      if (this.#worse(score, id, down)) break;
      this.#move(down, at);
      at = down;
    }
    this.ids[at] = id;
    this.scores[at] = score;
  }

  sorted(): { ids: Uint32Array; scores: Float64Array } {
    const order = Array.from({ length: this.size }, (_, index) => index).sort(
      (a, b) => this.scores[b]! - this.scores[a]! || this.ids[a]! - this.ids[b]!,
    );
    return { ids: Uint32Array.from(order, (at) => this.ids[at]!), scores: Float64Array.from(order, (at) => this.scores[at]!) };
  }

  #worse(score: number, id: number, than: number): boolean {
    return score < this.scores[than]! || (score === this.scores[than] && id > this.ids[than]!);
  }

  #move(from: number, to: number): void {
    this.ids[to] = this.ids[from]!;
    this.scores[to] = this.scores[from]!;
  }
}

/** Return the sum of `query` times code number `at`; four sums at a time keep the processor busy. */
export function dot(query: Float32Array, codes: Int8Array, at: number, dim: number): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  const base = at * dim;
  let i = 0;
  for (; i + 3 < dim; i += 4) {
    a += query[i]! * codes[base + i]!;
    b += query[i + 1]! * codes[base + i + 1]!;
    c += query[i + 2]! * codes[base + i + 2]!;
    d += query[i + 3]! * codes[base + i + 3]!;
  }
  for (; i < dim; i++) a += query[i]! * codes[base + i]!;
  return a + b + (c + d);
}

/** Return a vector at unit length. */
export function unit(vector: Float32Array): Float32Array {
  let length = 0;
  for (const value of vector) length += value * value;
  length = Math.sqrt(length);
  if (!(length > 1e-9) || !Number.isFinite(length)) {
    throw new SiteError("The parts of this query cancel each other out. Change a term or its sign.");
  }
  return vector.map((value) => value / length);
}

/** Return the weighted sum of unit vectors at unit length. */
export function combined(vectors: Float32Array[], weights: number[]): Float32Array {
  const sum = new Float64Array(vectors[0]!.length);
  vectors.forEach((vector, n) => vector.forEach((value, i) => (sum[i] = sum[i]! + weights[n]! * value)));
  return unit(Float32Array.from(sum));
}

/** One space of vectors of the site. */
export class VectorSpace {
  readonly space: Space;
  #files: Files;
  #codes: Promise<Int8Array> | undefined;
  #scales: Promise<Float32Array> | undefined;
  #siteRows: Promise<Uint32Array | null> | undefined;
  #vectorOf: Promise<Int32Array | null> | undefined;
  #cells: Promise<{ centroids: Float32Array; starts: Uint32Array }> | undefined;
  #held = new Map<number, Promise<Cell>>();
  #residualScales: Pages | null;
  #galaxies: number;

  constructor(files: Files, space: Space, galaxies: number) {
    this.#files = files;
    this.space = space;
    this.#galaxies = galaxies;
    this.#residualScales = space.residual_scales ? new Pages(files, space.residual_scales, "float32") : null;
  }

  get vectors(): number {
    return this.space.codes.bytes / this.space.dim;
  }

  /** Fetch what every search needs, beside other work. */
  prepare(): void {
    const wait = this.space.cells ? [this.#cellsOf(), this.#rows(), ...(this.space.scales.bytes <= SCALES_BYTES ? [this.#allScales()] : [])] : [this.#allCodes(), this.#allScales(), this.#rows()];
    for (const one of wait) one.catch(() => {}); // told by the search that needs it
  }

  /** Return the unit vector of a galaxy, null where it has none in this space. */
  async vectorOf(row: number): Promise<Float32Array | null> {
    const at = await this.indexOf(row);
    if (at < 0) return null;
    const { dim, codes } = this.space;
    const [code, scale, rest] = await Promise.all([
      this.space.cells ? this.#files.range(codes, at * dim, (at + 1) * dim).then((bytes) => asNumbers(bytes, "int8")) : this.#allCodes().then((all) => all.subarray(at * dim, (at + 1) * dim)),
      this.#scalesAt([at]),
      this.#residualsAt([at]),
    ]);
    return unit(Float32Array.from(code, (value, i) => scale[0]! * value + (rest ? rest.scales[0]! * rest.codes[0]![i]! : 0)));
  }

  /** Return the number of a galaxy's vector, -1 for none. */
  async indexOf(row: number): Promise<number> {
    this.#vectorOf ??= this.#rows().then((rows) => {
      if (!rows) return null;
      const inverse = new Int32Array(this.#galaxies).fill(-1);
      rows.forEach((one, at) => (inverse[one] = at));
      return inverse;
    });
    const inverse = await this.#vectorOf;
    return inverse ? inverse[row]! : row < this.vectors ? row : -1;
  }

  /** Return the `k` galaxies closest to a unit vector among those of the mask. */
  async search(query: Float32Array, k: number, mask: Mask, kind: "words" | "like" = "like"): Promise<Found> {
    if (query.length !== this.space.dim) throw new SiteError(`A vector of ${query.length} numbers was asked for in a space of ${this.space.dim}. Make the link anew.`);
    const rows = await this.#rows();
    const best = new Best(Math.min(Math.max(4 * k, k + 64), this.vectors));
    const how = this.space.cells ? await this.#probe(query, k, mask, rows, best, kind) : await this.#scan(query, mask, rows, best);
    const again = await this.#rescored(query, best, k);
    return { rows: again.ids.map((at) => (rows ? rows[at]! : at)), scores: Float32Array.from(again.scores), ...how };
  }

  /** Return the cosines of a unit vector with the vectors of some galaxies; NaN for those without. */
  async cosines(query: Float32Array, galaxies: ArrayLike<number>): Promise<Float32Array> {
    const at = await Promise.all(Array.from(galaxies, (row) => this.indexOf(row)));
    const there = at.filter((one) => one >= 0);
    const { dim, codes } = this.space;
    const [scales, rest] = await Promise.all([this.#scalesAt(there), this.#residualsAt(there)]);
    const pieces = this.space.cells
      ? await this.#files.ranges(codes, there.map((one) => ({ from: one * dim, to: (one + 1) * dim })), GAP_BYTES)
      : await this.#allCodes().then((all) => there.map((one) => new Uint8Array(all.buffer as ArrayBuffer, all.byteOffset + one * dim, dim)));
    let n = 0;
    return Float32Array.from(at, (one) => {
      if (one < 0) return NaN;
      const score = scales[n]! * dot(query, asNumbers(pieces[n]!, "int8"), 0, dim) + (rest ? rest.scales[n]! * dot(query, rest.codes[n]!, 0, dim) : 0);
      n++;
      return score;
    });
  }

  async #scan(query: Float32Array, mask: Mask, rows: Uint32Array | null, best: Best): Promise<Omit<Found, "rows" | "scores">> {
    const [codes, scales] = await Promise.all([this.#allCodes(), this.#allScales()]);
    const compared = scan({ codes, scales, first: 0, count: this.vectors }, query, mask, rows, best);
    return { compared, cells: 0, cellsOf: 0, exact: true };
  }

  async #probe(query: Float32Array, k: number, mask: Mask, rows: Uint32Array | null, best: Best, kind: "words" | "like"): Promise<Omit<Found, "rows" | "scores">> {
    const { centroids, starts } = await this.#cellsOf();
    const { dim, cells } = this.space;
    const count = starts.length - 1;
    const scores = Float32Array.from({ length: count }, (_, cell) => dotFloat(query, centroids, cell, dim));
    const order = Uint32Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b);
    const passes = mask ? countIn(mask, rows, 0, this.vectors) : this.vectors;
    const probes = wantedCells(cells!, kind, (DEPTH * this.vectors) / Math.max(1, passes), mask !== null);
    const chosen: Stretch[] = [];
    let [passing, bytes, occupied] = [0, 0, 0];
    for (const cell of order) {
      const stretch = passingStretch(cell, starts, mask, rows);
      if (!stretch.passing) continue;
      occupied++;
      const size = (stretch.to - stretch.from) * dim;
      const enough = chosen.length >= probes && passing >= Math.max(2 * k, 4 * DEPTH);
      if (enough || (bytes + size > MOST_BYTES && passing >= k)) continue;
      chosen.push(stretch);
      passing += stretch.passing;
      bytes += size;
    }
    const read = await Promise.all(chosen.map((stretch) => this.#stretch(stretch, starts)));
    const compared = read.reduce((sum, cell) => sum + scan(cell, query, mask, rows, best), 0);
    this.#trim();
    return { compared, cells: chosen.length, cellsOf: count, exact: occupied === chosen.length };
  }

  async #rescored(query: Float32Array, best: Best, k: number): Promise<{ ids: Uint32Array; scores: Float64Array }> {
    const first = best.sorted();
    const last = first.scores[Math.min(k, first.ids.length) - 1] ?? 0;
    const margin = 0.006; // beyond what int8 rounds away, six times over for 256 numbers
    const size = first.scores.findIndex((score, at) => at >= k && score < last - margin);
    const ids = size < 0 ? first.ids : first.ids.subarray(0, size);
    const rest = await this.#residualsAt(ids);
    if (!rest) return { ids: first.ids.subarray(0, k), scores: first.scores.subarray(0, k) };
    const again = new Best(Math.min(k, ids.length));
    ids.forEach((id, n) => again.push(id, first.scores[n]! + rest.scales[n]! * dot(query, rest.codes[n]!, 0, this.space.dim)));
    return again.sorted();
  }

  async #residualsAt(ids: ArrayLike<number>): Promise<{ codes: Int8Array[]; scales: Float64Array } | null> {
    const { residuals, dim } = this.space;
    if (!residuals || !this.#residualScales || !ids.length) return null;
    const spans: Span[] = Array.from(ids, (id) => ({ from: id * dim, to: (id + 1) * dim }));
    const [pieces, scales] = await Promise.all([this.#files.ranges(residuals, spans, 16 * GAP_BYTES), this.#residualScales.at(ids)]);
    return { codes: pieces.map((piece) => asNumbers(piece, "int8")), scales };
  }

  async #scalesAt(ids: number[]): Promise<ArrayLike<number>> {
    if (this.space.scales.bytes > SCALES_BYTES) return new Pages(this.#files, this.space.scales, "float32").at(ids);
    const all = await this.#allScales();
    return ids.map((id) => all[id]!);
  }

  #allCodes(): Promise<Int8Array> {
    return (this.#codes ??= kept(this.#files.whole(this.space.codes).then((bytes) => asNumbers(bytes, "int8")), () => (this.#codes = undefined)));
  }

  #allScales(): Promise<Float32Array> {
    return (this.#scales ??= kept(this.#files.whole(this.space.scales).then((bytes) => asNumbers(bytes, "float32")), () => (this.#scales = undefined)));
  }

  #rows(): Promise<Uint32Array | null> {
    const { site_rows } = this.space;
    const read = async () => (site_rows ? asNumbers(await this.#files.whole(site_rows), "uint32") : null);
    return (this.#siteRows ??= kept(read(), () => (this.#siteRows = undefined)));
  }

  #cellsOf(): Promise<{ centroids: Float32Array; starts: Uint32Array }> {
    const cells = this.space.cells!;
    const read = Promise.all([this.#files.whole(cells.centroids), this.#files.whole(cells.starts)]);
    return (this.#cells ??= kept(
      read.then(([centroids, starts]) => ({ centroids: asNumbers(centroids, "float32"), starts: asNumbers(starts, "uint32") })),
      () => (this.#cells = undefined),
    ));
  }

  /** Read the vectors of a stretch: all of a cell, which is kept, or less of it where a condition leaves few. */
  #stretch(stretch: Stretch, starts: Uint32Array): Promise<Cell> {
    const [from, to] = [starts[stretch.cell]!, starts[stretch.cell + 1]!];
    let found = this.#held.get(stretch.cell);
    if (!found && stretch.to - stretch.from < KEPT_SHARE * (to - from)) return this.#read(stretch.from, stretch.to);
    if (!found) {
      found = this.#read(from, to);
      found.catch(() => this.#held.delete(stretch.cell));
    }
    this.#held.delete(stretch.cell); // put at the end: used last
    this.#held.set(stretch.cell, found);
    return found;
  }

  async #read(from: number, to: number): Promise<Cell> {
    const { codes, scales, dim } = this.space;
    const scale = scales.bytes <= SCALES_BYTES ? this.#allScales().then((all) => all.subarray(from, to)) : this.#files.range(scales, from * 4, to * 4).then((bytes) => asNumbers(bytes, "float32"));
    return { codes: asNumbers(await this.#files.range(codes, from * dim, to * dim), "int8"), scales: await scale, first: from, count: to - from };
  }

  /** Let go of the cells that were used longest ago. */
  #trim(): void {
    const mean = (this.vectors / this.space.cells!.count) * this.space.dim;
    while (this.#held.size * mean > CELL_CACHE_BYTES) this.#held.delete(this.#held.keys().next().value!);
  }
}

interface Cell {
  codes: Int8Array;
  scales: Float32Array;
  first: number;
  count: number;
}

const DEPTH = 10; // of the best, what recall is measured of
const WANTED_RECALL = 0.98;
const MARGIN = 1.25; // of cells, over what was measured on other queries

/** Return how many cells hold the best `depth` of all vectors: a condition that leaves a share lets one look that much deeper. */
export function wantedCells(cells: NonNullable<Space["cells"]>, kind: "words" | "like", depth: number, hasCondition: boolean): number {
  const known = Math.max(1, kind === "words" ? cells.probes_words : cells.probes);
  if (!hasCondition || !cells.recall?.length) return known;
  let most = known;
  for (const of of [kind, "far"]) {
    const measured = cells.recall.filter(([asked]) => asked === of);
    const depths = [...new Set(measured.map(([, at]) => at))].sort((a, b) => a - b);
    const at = depths.find((one) => one >= depth);
    if (at === undefined) return measured.length ? cells.count : most; // deeper than was measured: nothing is left out
    const enough = measured.filter(([, one, , recall]) => one === at && recall >= WANTED_RECALL).map(([, , probes]) => probes);
    most = Math.max(most, enough.length ? Math.ceil(MARGIN * Math.min(...enough)) : cells.count);
  }
  return Math.min(most, cells.count);
}

function kept<T>(wait: Promise<T>, forget: () => void): Promise<T> {
  wait.catch(forget);
  return wait;
}

/** Score the vectors of a stretch; return how many. */
export function scan(cell: Cell, query: Float32Array, mask: Mask, rows: Uint32Array | null, best: Best): number {
  const dim = query.length;
  let compared = 0;
  for (let n = 0; n < cell.count; n++) {
    const id = cell.first + n;
    if (mask && !mask[rows ? rows[id]! : id]) continue;
    compared++;
    const score = cell.scales[n]! * dot(query, cell.codes, n, dim);
    if (score >= best.floor) best.push(id, score);
  }
  return compared;
}

interface Stretch {
  cell: number;
  from: number; // the first vector that passes
  to: number; // after the last one
  passing: number;
}

/** Return what of a cell has to be read under a mask. */
function passingStretch(cell: number, starts: Uint32Array, mask: Mask, rows: Uint32Array | null): Stretch {
  const [first, end] = [starts[cell]!, starts[cell + 1]!];
  if (!mask) return { cell, from: first, to: end, passing: end - first };
  let [from, to, passing] = [end, first, 0];
  for (let id = first; id < end; id++) {
    if (!mask[rows ? rows[id]! : id]) continue;
    if (!passing++) from = id;
    to = id + 1;
  }
  return { cell, from, to, passing };
}

function countIn(mask: Uint8Array, rows: Uint32Array | null, from: number, to: number): number {
  let found = 0;
  for (let id = from; id < to; id++) found += mask[rows ? rows[id]! : id]!;
  return found;
}

function dotFloat(query: Float32Array, vectors: Float32Array, at: number, dim: number): number {
  let sum = 0;
  for (let i = 0; i < dim; i++) sum += query[i]! * vectors[at * dim + i]!;
  return sum;
}
