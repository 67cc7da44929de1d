// Which galaxies pass: ranges of columns and a cone in typed arrays, and a condition in SQL where there is one.
import { SiteError } from "./errors.ts";
import { asNumbers, Files, type Numbers } from "./files.ts";
import type { Column, Site } from "./manifest.ts";
import type { Cone, Query } from "./query.ts";
import type { Mask } from "./search.ts";

const DEGREE = Math.PI / 180;

/** The columns that come as arrays. */
export class Columns {
  #files: Files;
  #site: Site;
  #held = new Map<string, Promise<Numbers>>();

  constructor(files: Files, site: Site) {
    this.#files = files;
    this.#site = site;
  }

  has(name: string): boolean {
    return this.#site.columns.some((column) => column.name === name && column.values);
  }

  /** Return those that get a slider. */
  sliders(): Column[] {
    return this.#site.columns.filter((column) => column.values && column.histogram && !["ra", "dec"].includes(column.name));
  }

  values(name: string): Promise<Numbers> {
    let found = this.#held.get(name);
    if (!found) {
      const column = this.#site.columns.find((one) => one.name === name && one.values);
      if (!column) throw new SiteError(`This site has no column “${name}” with a slider. Write a condition in SQL instead.`);
      found = this.#files.whole(column.values!).then((bytes) => asNumbers(bytes, column.values_type ?? "float32"));
      found.catch(() => this.#held.delete(name));
      this.#held.set(name, found);
    }
    return found;
  }
}

/** Return which galaxies pass everything that is asked; null where nothing is. */
export async function maskOf(query: Query, columns: Columns, rows: number, sql: (where: string) => Promise<Uint8Array>): Promise<Mask> {
  const parts: Promise<Uint8Array>[] = [];
  for (const [name, ends] of Object.entries(query.ranges)) parts.push(columns.values(name).then((values) => within(values, ends)));
  if (query.near) parts.push(inCone(query.near, columns));
  if (query.where) parts.push(sql(query.where));
  if (!parts.length) return null;
  const [first, ...rest] = await Promise.all(parts);
  const mask = Uint8Array.from(first!);
  for (const other of rest) for (let row = 0; row < rows; row++) mask[row]! &= other[row]!;
  return mask;
}

/** Say which values lie from `low` to `high`, both included; a missing value never does. */
export function within(values: Numbers, [low, high]: [number | null, number | null]): Uint8Array {
  const result = new Uint8Array(values.length);
  const single = values instanceof Float32Array;
  const from = low === null ? -Infinity : single ? Math.fround(low) : low;
  const to = high === null ? Infinity : single ? Math.fround(high) : high;
  for (let row = 0; row < values.length; row++) result[row] = +(values[row]! >= from && values[row]! <= to);
  return result;
}

async function inCone(cone: Cone, columns: Columns): Promise<Uint8Array> {
  const [ra, dec] = await Promise.all([columns.values("ra"), columns.values("dec")]);
  const result = new Uint8Array(ra.length);
  for (let row = 0; row < ra.length; row++) result[row] = +(separation(ra[row]!, dec[row]!, cone.ra, cone.dec) <= cone.radius_arcsec);
  return result;
}

/** Return the angle between two positions in arcseconds (haversine; exact for small angles). */
export function separation(ra1: number, dec1: number, ra2: number, dec2: number): number {
  const a = Math.sin(((dec2 - dec1) * DEGREE) / 2) ** 2;
  const b = Math.cos(dec1 * DEGREE) * Math.cos(dec2 * DEGREE) * Math.sin(((ra2 - ra1) * DEGREE) / 2) ** 2;
  return (2 * Math.asin(Math.min(1, Math.sqrt(a + b))) * 3600) / DEGREE;
}

export function count(mask: Mask, rows: number): number {
  if (!mask) return rows;
  let sum = 0;
  for (const one of mask) sum += one;
  return sum;
}
