// Spectra of galaxies, a record each in one file.
import { SiteError } from "./errors.ts";
import { asNumbers, Files, Pages } from "./files.ts";
import type { Site } from "./manifest.ts";

export interface Spectrum {
  wavelength: Float64Array; // vacuum, Angstrom
  flux: Float32Array;
  error: Float32Array; // NaN for no data
  z: number | null;
  frame: string;
  unit: string | null;
}

export class Spectra {
  #files: Files;
  #about: NonNullable<Site["spectra"]>;
  #starts: Pages;

  constructor(files: Files, about: NonNullable<Site["spectra"]>) {
    this.#files = files;
    this.#about = about;
    this.#starts = new Pages(files, about.starts, about.starts_type ?? "uint32");
  }

  /** Return the spectrum of a galaxy, null where it has none. */
  async get(row: number): Promise<Spectrum | null> {
    const [from, to] = await this.#starts.at([row, row + 1]);
    return from === to ? null : parseSpectrum(await this.#files.range(this.#about.blob, from!, to!));
  }
}

export function parseSpectrum(bytes: Uint8Array<ArrayBuffer>): Spectrum {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const { n } = head;
  const numbers = bytes.slice(4 + length);
  if (numbers.length !== 8 * n) throw new SiteError("This spectrum is cut off. Reload the page; if it stays so, export the site again.");
  return {
    wavelength: Float64Array.from({ length: n }, (_, i) => 10 ** (head.log_wavelength_start + i * head.log_wavelength_step)),
    flux: asNumbers(numbers.subarray(0, 4 * n), "float32"),
    error: asNumbers(numbers.slice(4 * n), "float32"),
    z: head.z ?? null,
    frame: head.frame ?? "observed",
    unit: head.unit ?? null,
  };
}
