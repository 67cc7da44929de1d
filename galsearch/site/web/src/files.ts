// Bytes of the site's files: by range where the host answers ranges, by whole files where it does not. Every byte is
// checked against what site.json says: a whole file by length and digest, a range by the length that its answer states.
import { SiteError } from "./errors.ts";

export interface Part {
  path: string;
  bytes: number;
  sha256?: string;
}

/** A file as site.json names it: its parts follow one another, each of them a file of the host. */
export interface FileEntry {
  parts: Part[];
  bytes: number;
}

export interface Span {
  from: number;
  to: number; // exclusive
}

export type Progress = (bytes: number) => void;

const WHOLE_BYTES = 600_000; // a file below this is fetched at once: one round trip, and its digest is checked
const AT_ONCE = 16; // requests; over HTTP/1.1 a browser lets six of them through, over HTTP/2 all
const RETRIES = 2;

/** Reads the files below one address, and remembers what it learned of the host. */
export class Files {
  received = 0; // bytes, for who wants to know
  #base: string;
  #ranges: Promise<boolean> | undefined;
  #noRanges = false;
  #whole = new Map<string, Promise<Uint8Array<ArrayBuffer>>>();
  #free = AT_ONCE;
  #waiting: (() => void)[] = [];

  constructor(base: string) {
    this.#base = base;
  }

  /** Return the absolute address of a part: a relative one means nothing inside a worker. */
  address(part: Part): string {
    return new URL(part.path, this.#base).href;
  }

  /** Say whether the host answers ranges of this part as it should; asked once, with one byte. */
  answersRanges(part: Part): Promise<boolean> {
    return (this.#ranges ??= this.#probe(part));
  }

  /** Return a whole file, checked. */
  async whole(entry: FileEntry, progress?: Progress): Promise<Uint8Array<ArrayBuffer>> {
    const parts = await Promise.all(entry.parts.map((part) => this.#part(part, progress)));
    if (parts.length === 1) return parts[0]!;
    const all = new Uint8Array(entry.bytes);
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }

  /** Return bytes `from` up to `to` of a file. */
  async range(entry: FileEntry, from: number, to: number): Promise<Uint8Array<ArrayBuffer>> {
    if (!(from >= 0 && to >= from && to <= entry.bytes)) {
      throw new SiteError(`Bytes ${from} to ${to} of a file of ${entry.bytes} were asked for: site.json does not fit its data. Export the site again.`);
    }
    const pieces: Promise<Uint8Array<ArrayBuffer>>[] = [];
    let start = 0;
    for (const part of entry.parts) {
      const [low, high] = [Math.max(from, start), Math.min(to, start + part.bytes)];
      if (low < high) pieces.push(this.#slice(part, low - start, high - start));
      start += part.bytes;
    }
    const got = await Promise.all(pieces);
    if (got.length === 1) return got[0]!;
    const all = new Uint8Array(to - from);
    let at = 0;
    for (const piece of got) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }

  /** Return several spans of a file, in their order; those that lie closer than `gap` bytes come in one request. */
  async ranges(entry: FileEntry, spans: Span[], gap: number): Promise<Uint8Array<ArrayBuffer>[]> {
    const joined = joinSpans(spans, gap);
    const blocks = await Promise.all(joined.map((span) => this.range(entry, span.from, span.to)));
    return spans.map((span) => {
      const at = joined.findIndex((one) => one.from <= span.from && span.to <= one.to);
      const first = span.from - joined[at]!.from;
      return blocks[at]!.subarray(first, first + span.to - span.from);
    });
  }

  async #slice(part: Part, from: number, to: number): Promise<Uint8Array<ArrayBuffer>> {
    const held = this.#whole.get(part.path);
    if (held || part.bytes <= WHOLE_BYTES || !(await this.answersRanges(part)) || this.#noRanges) {
      return (await this.#part(part)).subarray(from, to);
    }
    const response = await this.#fetch(part, { range: `bytes=${from}-${to - 1}` });
    if (response.status === 200) {
      await response.body?.cancel();
      this.#noRanges = true; // the host has changed its mind; from here on files come whole
      return (await this.#part(part)).subarray(from, to);
    }
    if (statedTotal(response) !== part.bytes) throw replaced(part, `is ${statedTotal(response) ?? "of unknown length"}`);
    const bytes = await bodyOf(response, part);
    this.received += bytes.length;
    if (bytes.length !== to - from) throw replaced(part, `gave ${bytes.length} of ${to - from} bytes`);
    return bytes;
  }

  #part(part: Part, progress?: Progress): Promise<Uint8Array<ArrayBuffer>> {
    let found = this.#whole.get(part.path);
    if (!found) {
      found = this.#fetchPart(part, progress);
      this.#whole.set(part.path, found);
      found.catch(() => this.#whole.delete(part.path)); // so that trying again is possible
    }
    return found;
  }

  /** Forget a file that was read whole and is not needed any more. */
  forget(entry: FileEntry): void {
    for (const part of entry.parts) this.#whole.delete(part.path);
  }

  async #fetchPart(part: Part, progress?: Progress): Promise<Uint8Array<ArrayBuffer>> {
    const response = await this.#fetch(part, {});
    const bytes = await bodyOf(response, part, progress);
    this.received += bytes.length;
    if (bytes.length !== part.bytes) throw replaced(part, `has ${bytes.length.toLocaleString("en")} bytes`);
    await checkDigest(part, bytes);
    return bytes;
  }

  async #probe(part: Part): Promise<boolean> {
    const stop = new AbortController();
    try {
      const response = await this.#fetch(part, { range: "bytes=0-0" }, stop.signal);
      if (response.status !== 206) return false;
      const total = statedTotal(response);
      const first = await bodyOf(response, part);
      if (first.length !== 1) return false;
      // Compressed on its way, a file has another length for ranges than the one that is read: no good for ranges.
      if (total !== part.bytes && response.headers.get("content-encoding")) return false;
      if (total !== part.bytes) throw replaced(part, `has ${total ?? "an unknown number of"} bytes`);
      return true;
    } finally {
      stop.abort(); // a host without ranges sends all of it otherwise
    }
  }

  async #fetch(part: Part, { range }: { range?: string }, signal?: AbortSignal): Promise<Response> {
    await this.#turn();
    try {
      for (let tried = 0; ; tried++) {
        const response = await this.#once(part, range, tried, signal);
        if (response) return response;
        await new Promise((done) => setTimeout(done, 200 * 3 ** tried));
      }
    } finally {
      this.#free++;
      this.#waiting.shift()?.();
    }
  }

  /** Ask once; nothing where asking again may help. */
  async #once(part: Part, range: string | undefined, tried: number, signal?: AbortSignal): Promise<Response | null> {
    const options: RequestInit = { mode: "same-origin", credentials: "same-origin", redirect: "follow", signal: signal ?? null };
    if (range) {
      options.headers = { Range: range };
      options.cache = "no-store"; // Chromium lets ranges of one address wait for each other in its cache
    }
    let response: Response;
    try {
      response = await fetch(this.address(part), options);
    } catch (error) {
      if (tried < RETRIES) return null;
      throw new SiteError(`${part.path} cannot be reached (${(error as Error).message}). Check your connection and reload the page.`);
    }
    if (response.ok) return response;
    if (response.status >= 500 && tried < RETRIES) return null;
    await response.body?.cancel();
    if (response.status === 404) throw replaced(part, "is missing");
    if (response.status === 416) throw replaced(part, "is shorter than that");
    throw new SiteError(`The host answers ${response.status} for ${part.path}. Reload the page, or tell who runs this site.`);
  }

  async #turn(): Promise<void> {
    while (this.#free === 0) await new Promise<void>((go) => this.#waiting.push(go));
    this.#free--;
  }
}

/** Join spans that lie closer than `gap` bytes, in order. */
export function joinSpans(spans: Span[], gap: number): Span[] {
  const joined: Span[] = [];
  for (const span of [...spans].sort((a, b) => a.from - b.from || a.to - b.to)) {
    const last = joined.at(-1);
    if (last && span.from <= last.to + gap) last.to = Math.max(last.to, span.to);
    else joined.push({ ...span });
  }
  return joined;
}

function statedTotal(response: Response): number | null {
  const found = /^bytes \d+-\d+\/(\d+)$/.exec(response.headers.get("content-range") ?? "");
  return found ? Number(found[1]) : null;
}

function replaced(part: Part, what: string): SiteError {
  return new SiteError(
    `The data of this site is damaged or was replaced while you read it: ${part.path} ${what}, and site.json says ` +
      `${part.bytes.toLocaleString("en")} bytes. Reload the page; if it stays so, the site has to be exported again.`,
  );
}

async function bodyOf(response: Response, part: Part, progress?: Progress): Promise<Uint8Array<ArrayBuffer>> {
  try {
    if (!progress || !response.body) return new Uint8Array(await response.arrayBuffer());
    const pieces: Uint8Array[] = [];
    let length = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      pieces.push(value);
      length += value.length;
      progress(value.length);
    }
    const all = new Uint8Array(length);
    let at = 0;
    for (const piece of pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw replaced(part, `broke off (${(error as Error).message})`);
  }
}

/** Compare a whole file with its digest; where the page is not served securely browsers offer no digest, and its length must do. */
async function checkDigest(part: Part, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  if (!part.sha256 || !globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== part.sha256) throw replaced(part, "has another content");
}

/** Inflate gzip; bytes that a host has inflated on their way already are returned as they are. */
export async function inflate(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// ---- arrays

const KINDS = { int8: Int8Array, uint16: Uint16Array, int16: Int16Array, uint32: Uint32Array, float32: Float32Array, float64: Float64Array };
export type Kind = keyof typeof KINDS;
export type Numbers = InstanceType<(typeof KINDS)[Kind]>;

/** View little-endian bytes as numbers; copies only where they are not aligned. */
export function asNumbers<K extends Kind>(bytes: Uint8Array<ArrayBuffer>, kind: K): InstanceType<(typeof KINDS)[K]> {
  const type = KINDS[kind];
  const aligned = bytes.byteOffset % type.BYTES_PER_ELEMENT === 0 ? bytes : bytes.slice();
  return new type(aligned.buffer, aligned.byteOffset, Math.floor(aligned.byteLength / type.BYTES_PER_ELEMENT)) as InstanceType<(typeof KINDS)[K]>;
}

const PAGE_VALUES = 4096;

/** Numbers of a file by index, read page by page where the file is long. */
export class Pages {
  #files: Files;
  #entry: FileEntry;
  #kind: Kind;
  #pages = new Map<number, Promise<Numbers>>();

  constructor(files: Files, entry: FileEntry, kind: Kind) {
    this.#files = files;
    this.#entry = entry;
    this.#kind = kind;
  }

  get length(): number {
    return this.#entry.bytes / KINDS[this.#kind].BYTES_PER_ELEMENT;
  }

  /** Return the numbers at these indices. */
  async at(indices: ArrayLike<number>): Promise<Float64Array> {
    const wanted = new Set(Array.from(indices, (index) => Math.floor(index / PAGE_VALUES)));
    const pages = new Map(await Promise.all([...wanted].map(async (page) => [page, await this.#page(page)] as const)));
    return Float64Array.from(Array.from(indices), (index) => pages.get(Math.floor(index / PAGE_VALUES))![index % PAGE_VALUES]!);
  }

  #page(page: number): Promise<Numbers> {
    let found = this.#pages.get(page);
    if (!found) {
      const size = KINDS[this.#kind].BYTES_PER_ELEMENT * PAGE_VALUES;
      const to = Math.min(this.#entry.bytes, (page + 1) * size);
      found = this.#files.range(this.#entry, page * size, to).then((bytes) => asNumbers(bytes.slice(), this.#kind));
      found.catch(() => this.#pages.delete(page));
      this.#pages.set(page, found);
    }
    return found;
  }
}
