// What is asked, as plain data, and as the text of a link. Whatever a link says is checked before anything is done with it.
export interface Term {
  kind: "text" | "object" | "image";
  value: string; // words, or an object_id; of an image its name
  weight: number;
  vector?: Float32Array; // of an image: it stays in this tab
}

export interface Cone {
  ra: number;
  dec: number;
  radius_arcsec: number;
}

export interface Query {
  space: string | null; // null for the main one
  terms: Term[];
  where: string;
  ranges: Record<string, [number | null, number | null]>;
  near: Cone | null;
  k: number;
}

export type View = "gallery" | "table" | "maps";

export interface State {
  query: Query;
  view: View;
  object: string | null;
}

export const FIRST_K = 48;
export const MOST_K = 960;
const MOST_LINK = 40_000;
const MOST_TERMS = 24;
export const MOST_TEXT = 2_000;
export const MOST_WHERE = 4_000;
const VIEWS: View[] = ["gallery", "table", "maps"];

export function empty(): State {
  return { query: { space: null, terms: [], where: "", ranges: {}, near: null, k: FIRST_K }, view: "gallery", object: null };
}

/** Return the state as the text after # in a link: only what differs from the start. */
export function toHash(state: State): string {
  const { query, view, object } = state;
  const terms = query.terms.filter((term) => term.kind !== "image").map(({ kind, value, weight }) => (weight === 1 ? [kind, value] : [kind, value, weight]));
  const said: Record<string, unknown> = {};
  if (terms.length) said.terms = terms;
  if (query.space) said.space = query.space;
  if (query.where) said.where = query.where;
  if (Object.keys(query.ranges).length) said.ranges = query.ranges;
  if (query.near) said.near = [query.near.ra, query.near.dec, query.near.radius_arcsec];
  if (query.k !== FIRST_K) said.k = query.k;
  if (view !== "gallery") said.view = view;
  if (object !== null) said.object = object;
  return Object.keys(said).length ? `#q=${encodeURIComponent(JSON.stringify(said))}` : "";
}

/** Return the state that a link says; what it gets wrong is passed over and named in `wrong`. */
export function fromHash(hash: string): { state: State; wrong: string[] } {
  const state = empty();
  const wrong: string[] = [];
  const text = /^#q=(.*)$/s.exec(hash)?.[1];
  if (!text) return { state, wrong };
  let said: unknown;
  try {
    if (text.length > MOST_LINK) throw new RangeError();
    said = JSON.parse(decodeURIComponent(text));
  } catch {
    said = null;
  }
  if (!said || typeof said !== "object" || Array.isArray(said)) {
    return { state, wrong: ["The link says no query that can be read; the page shows its start."] };
  }
  const of = said as Record<string, unknown>;
  const take = <T>(name: string, read: (value: unknown) => T | undefined, set: (value: T) => void): void => {
    if (!Object.hasOwn(of, name)) return;
    const value = read(of[name]);
    if (value === undefined) wrong.push(`The link's “${name}” cannot be read and is left out.`);
    else set(value);
  };
  const { query } = state;
  take("terms", readTerms, (terms) => (query.terms = terms));
  take("space", (value) => text_(value, 200), (space) => (query.space = space));
  take("where", (value) => text_(value, MOST_WHERE), (where) => (query.where = where));
  take("ranges", readRanges, (ranges) => (query.ranges = ranges));
  take("near", readCone, (near) => (query.near = near));
  take("k", (value) => (Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MOST_K ? (value as number) : undefined), (k) => (query.k = k));
  take("view", (value) => VIEWS.find((view) => view === value), (view) => (state.view = view));
  take("object", (value) => text_(value, MOST_TEXT), (object) => (state.object = object));
  return { state, wrong };
}

function text_(value: unknown, most: number): string | undefined {
  return typeof value === "string" && value.length > 0 && value.length <= most ? value : undefined;
}

function readTerms(value: unknown): Term[] | undefined {
  if (!Array.isArray(value) || value.length > MOST_TERMS) return undefined;
  const terms: Term[] = [];
  for (const one of value) {
    if (!Array.isArray(one)) return undefined;
    const [kind, what, weight = 1] = one;
    const text = text_(what, MOST_TEXT);
    if ((kind !== "text" && kind !== "object") || text === undefined || !isWeight(weight)) return undefined;
    terms.push({ kind, value: text, weight });
  }
  return terms;
}

export function isWeight(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value !== 0 && Math.abs(value) <= 100;
}

function readRanges(value: unknown): Query["ranges"] | undefined {
  if (!value || typeof value !== "object" || Array.isArray(value)) return undefined;
  const entries = Object.entries(value);
  const isEnd = (end: unknown) => end === null || (typeof end === "number" && Number.isFinite(end));
  if (entries.length > 32 || !entries.every(([, ends]) => Array.isArray(ends) && ends.length === 2 && ends.every(isEnd))) return undefined;
  return Object.fromEntries(entries) as Query["ranges"];
}

function readCone(value: unknown): Cone | undefined {
  if (!Array.isArray(value) || value.length !== 3 || !value.every((one) => typeof one === "number" && Number.isFinite(one))) return undefined;
  const [ra, dec, radius_arcsec] = value as [number, number, number];
  return ra >= 0 && ra < 360 && Math.abs(dec) <= 90 && radius_arcsec > 0 && radius_arcsec <= 648_000 ? { ra, dec, radius_arcsec } : undefined;
}

/** Read "189.2 +62.2" or "12:36:49.4 +62:12:58" or "12h36m49.4s +62d12m58s": degrees ICRS, null where it is neither. */
export function readPosition(text: string): { ra: number; dec: number } | null {
  const parts = text.trim().replace(/[−–]/g, "-").split(/[\s,]+(?=[+-]?\d)/);
  const sexagesimal = /[:hd°]/.test(text);
  let [ra, dec] = [NaN, NaN];
  if (!sexagesimal && parts.length === 2) [ra, dec] = parts.map(Number) as [number, number];
  else if (sexagesimal && parts.length === 2) [ra, dec] = [15 * sixties(parts[0]!), sixties(parts[1]!)];
  else if (parts.length === 6) [ra, dec] = [15 * sixties(parts.slice(0, 3).join(":")), sixties(parts.slice(3).join(":"))];
  return ra >= 0 && ra < 360 && Math.abs(dec) <= 90 ? { ra, dec } : null;
}

function sixties(text: string): number {
  const found = /^([+-]?)(\d+)(?:[:hd°](\d{1,2})(?:[:m'′](\d{1,2}(?:\.\d*)?)[s"″]?)?)?[m'′]?$/.exec(text.trim());
  if (!found) return NaN;
  const [, sign, whole, minutes = "0", seconds = "0"] = found;
  if (Number(minutes) >= 60 || Number(seconds) >= 60) return NaN;
  return (sign === "-" ? -1 : 1) * (Number(whole) + Number(minutes) / 60 + Number(seconds) / 3600);
}

/** Return the query as a person writes it: `spiral galaxy − 0.5 × bar + like xdf-0012`. */
export function formula(query: Query): string {
  return query.terms
    .map((term) => {
      const size = Math.abs(term.weight);
      const name = term.kind === "object" ? `like ${term.value}` : term.kind === "image" ? `your image ${term.value}` : term.value;
      return `${term.weight < 0 ? "−" : "+"} ${size === 1 ? "" : `${+size.toPrecision(3)} × `}${name}`;
    })
    .join(" ")
    .replace(/^\+ /, "");
}
