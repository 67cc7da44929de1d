// Cards: what is shown of a galaxy, its columns and thumbnail, packed in one file. Those of a page come in a few ranges.
import { SiteError } from "./errors.ts";
import { Files, Pages } from "./files.ts";
import type { Site } from "./manifest.ts";

export type Value = string | number | boolean | null;

export interface Card {
  row: number;
  id: string;
  ra: number | null;
  dec: number | null;
  caption: string | null;
  columns: Record<string, Value>;
  picture: string | null; // an address that this page made
}

const GAP_BYTES = 8192; // read over rather than ask again
const KEPT = 1200;

/** Reads cards by row and keeps those that were read last. */
export class Cards {
  #files: Files;
  #site: Site;
  #starts: Pages;
  #kept = new Map<number, Promise<Card>>();

  constructor(files: Files, site: Site) {
    this.#files = files;
    this.#site = site;
    this.#starts = new Pages(files, site.card_starts, site.card_starts_type ?? "uint32");
  }

  /** Return the cards of some rows, in their order; each promise is done when its bytes are there. */
  get(rows: ArrayLike<number>): Promise<Card>[] {
    const missing = [...new Set(Array.from(rows))].filter((row) => !this.#kept.has(row));
    if (missing.length) {
      const read = this.#read(missing);
      missing.forEach((row, n) => {
        const one = read.then((all) => all[n]!);
        one.catch(() => this.#kept.delete(row));
        this.#kept.set(row, one);
      });
    }
    const found = Array.from(rows, (row) => this.#kept.get(row)!);
    this.#trim(new Set(Array.from(rows)));
    return found;
  }

  async #read(rows: number[]): Promise<Card[]> {
    const ends = await this.#starts.at(rows.flatMap((row) => [row, row + 1]));
    const spans = rows.map((_, n) => ({ from: ends[2 * n]!, to: ends[2 * n + 1]! }));
    const pieces = await this.#files.ranges(this.#site.cards, spans, GAP_BYTES);
    return pieces.map((bytes, n) => parse(rows[n]!, bytes));
  }

  #trim(needed: Set<number>): void {
    for (const [row, card] of this.#kept) {
      if (this.#kept.size <= KEPT) return;
      if (needed.has(row)) continue;
      this.#kept.delete(row);
      card.then(({ picture }) => picture && URL.revokeObjectURL(picture)).catch(() => {});
    }
  }
}

/** Read a card's bytes: the length of its JSON, the JSON, the picture. */
export function parse(row: number, bytes: Uint8Array<ArrayBuffer>): Card {
  const length = bytes.length < 4 ? Infinity : new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  if (4 + length > bytes.length) throw new SiteError(`The card of row ${row} is cut off. Reload the page; if it stays so, export the site again.`);
  const { object_id, caption = null, ...columns } = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const image = bytes.slice(4 + length);
  const { ra = null, dec = null } = columns;
  return { row, id: String(object_id), ra, dec, caption, columns, picture: image.length ? URL.createObjectURL(new Blob([image], { type: typeOf(image) })) : null };
}

function typeOf(bytes: Uint8Array): string {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return "image/jpeg";
  if (bytes[0] === 0x89 && bytes[1] === 0x50) return "image/png";
  return "image/webp";
}

/** Describe a galaxy's picture for who does not see it. */
export function alt(card: Card): string {
  return card.caption ? `${card.id}: ${card.caption.slice(0, 240)}` : `Image of ${card.id}`;
}
