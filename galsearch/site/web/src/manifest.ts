// site.json: what the site holds and where. It is read first, and what it says is checked before it is believed.
import { SiteError } from "./errors.ts";
import type { FileEntry } from "./files.ts";

export interface Space {
  name: string;
  modality: string;
  dim: number;
  codes: FileEntry;
  scales: FileEntry;
  residuals: FileEntry | null;
  residual_scales?: FileEntry | null;
  site_rows: FileEntry | null;
  cells: { count: number; centroids: FileEntry; starts: FileEntry; probes: number; probes_words: number; recall?: [string, number, number, number][] } | null;
  thresholds?: { words?: number | null; like?: number | null } | null;
  words: string | null;
}

export interface Column {
  name: string;
  type: string;
  unit: string | null;
  ucd: string | null;
  description: string | null;
  min: number | null;
  max: number | null;
  histogram: number[] | null;
  values: FileEntry | null;
  values_type?: "float32" | "float64";
  shown: boolean;
}

export interface Source {
  title: string;
  license?: string | null;
  acknowledgement?: string | null;
  bibtex?: string | null;
}

export interface Chips {
  phrases: string[];
  vectors: FileEntry;
  examples: number[];
}

export interface Tokens {
  lowercase: boolean;
  strip_accents: boolean | null;
  clean_text: boolean;
  handle_chinese_chars: boolean;
  unknown: string;
  prefix: string;
  max_characters_per_word: number;
  first: number[];
  last: number[];
  added_tokens: Record<string, number>;
}

export interface TextEncoder {
  space?: string | null; // null where it serves only through its projectors
  body: FileEntry;
  embedding_rows: { file: FileEntry; dtype: "int8"; rows: number; dim: number; scales: FileEntry };
  vocab: FileEntry;
  tokenizer: Tokens;
  max_tokens: number;
  max_characters: number;
  bytes_total: number;
  projectors: Record<string, { body: FileEntry; input: string; output: string }>;
  inputs: { embeddings: string; attention_mask: string };
  output: string;
}

export interface ImageEncoder {
  body: FileEntry;
  input: { name: string; size_px: number };
  output: string;
  bytes: number;
}

/** What held-out members gave for one way of voting: of classes pseudo and power, of numbers floor and quantile. */
export interface Fit {
  k: number;
  weight: string;
  tau: number;
  pseudo?: number;
  power?: number;
  floor?: number;
  quantile?: number;
}

export interface Base {
  name: string;
  target: string;
  kind?: string;
  space: string;
  k: number;
  weight: string;
  tau: number;
  least?: number | null;
  calibration?: { far?: number; fits?: Fit[] } | null;
  members: FileEntry;
  labels?: string[] | null;
  label_codes?: FileEntry | null;
  label_codes_type?: "int16" | "int32";
  rows?: number;
  values?: FileEntry | null;
  unit?: string | null;
  description?: string | null;
}

export interface Site {
  format: string;
  version: string;
  title: string;
  rows: number;
  created: string;
  software: string;
  sources: Source[];
  provenance: unknown[];
  bundle: { name: string; url: string | null; bytes: number; sha256: string } | null;
  spaces: Space[];
  chips: Record<string, Chips>;
  cards: FileEntry;
  card_starts: FileEntry;
  card_starts_type?: "uint32" | "float64";
  columns: Column[];
  maps: Record<string, FileEntry>;
  facts: { files: { file: FileEntry; first_row: number; rows: number }[]; tables: unknown[] } | null;
  ids: { blocks: FileEntry; index: FileEntry } | null;
  citation?: { bibtex?: string; acknowledgements?: string | string[] } | null;
  text_encoder: TextEncoder | null;
  image_encoder: ImageEncoder | null;
  spectra: { blob: FileEntry; starts: FileEntry; starts_type?: "uint32" | "float64" } | null;
  lines: { name: string; wavelength_angstrom: number }[];
  knowledge: Base[];
}

const FORMAT = "galsearch.site";
const MAJOR = "1";

/** Fetch and check site.json. */
export async function readSite(address: string): Promise<Site> {
  let text: string;
  try {
    const response = await fetch(address, { cache: "no-cache", mode: "same-origin" });
    if (!response.ok) throw new Error(`the host answers ${response.status}`);
    text = await response.text();
  } catch (error) {
    throw new SiteError(
      location.protocol === "file:"
        ? "A browser reads no data from a page that is opened as a file. Serve the folder: galsearch site --serve, or any web server."
        : `site.json cannot be read (${(error as Error).message}). Reload the page, or tell who runs this site.`,
    );
  }
  return checked(text);
}

/** Read site.json's text. */
export function checked(text: string): Site {
  let site: Site;
  try {
    site = JSON.parse(text);
  } catch {
    throw new SiteError("site.json is not whole: it is no JSON. Reload the page; if it stays so, export the site again.");
  }
  if (site?.format !== FORMAT) throw new SiteError(`site.json is of format ${JSON.stringify(site?.format)}, this page reads ${FORMAT}. Export the site again.`);
  if (String(site.version).split(".")[0] !== MAJOR) {
    throw new SiteError(`site.json is of version ${site.version}, this page reads version ${MAJOR}. Export the site again with one release of galsearch.`);
  }
  const wrong = problem(site);
  if (wrong) throw new SiteError(`site.json is damaged: ${wrong}. Export the site again.`);
  return site;
}

function problem(site: Site): string | null {
  if (!isCount(site.rows)) return "it says no number of rows";
  for (const name of ["spaces", "columns"] as const) if (!Array.isArray(site[name])) return `${name} is no list`;
  for (const name of ["knowledge", "sources", "provenance", "lines"] as const) site[name] ??= [];
  site.maps ??= {};
  site.chips ??= {};
  let entries = 0;
  const wrong: string[] = [];
  const visit = (value: unknown): void => {
    if (!value || typeof value !== "object") return;
    const entry = value as FileEntry;
    if (Array.isArray(entry.parts)) {
      entries++;
      const sum = entry.parts.reduce((total, part) => total + (isCount(part?.bytes) ? part.bytes : NaN), 0);
      if (sum !== entry.bytes) wrong.push("the parts of a file do not add up");
      if (!entry.parts.every((part) => isOurs(part?.path))) wrong.push("a file lies outside the site");
      return;
    }
    Object.values(value).forEach(visit);
  };
  const { provenance: _, sources: __, ...files } = site;
  visit(files);
  if (!entries) return "it names no file";
  if (wrong.length) return wrong[0]!;
  if (!site.cards?.parts || !site.card_starts?.parts) return "it names no cards";
  for (const space of site.spaces) {
    if (!isCount(space.dim) || !space.dim || space.codes.bytes % space.dim) return `the codes of space ${space.name} do not fit its length`;
    if (space.scales.bytes !== (space.codes.bytes / space.dim) * 4) return `the scales of space ${space.name} are not as many as its codes`;
  }
  return null;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/** Say whether a path stays below the site: no scheme, no host, no way up. */
function isOurs(path: unknown): boolean {
  return typeof path === "string" && /^[A-Za-z0-9_][\w.+-]*(\/[A-Za-z0-9_][\w.+-]*)*$/.test(path) && !path.includes("..");
}
