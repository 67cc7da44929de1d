// A picture of the visitor becomes a vector; it never leaves the browser.
import { SiteError } from "./errors.ts";
import { Files, type Progress } from "./files.ts";
import type { ImageEncoder } from "./manifest.ts";
import { Runtime } from "./runtime.ts";
import { unit } from "./search.ts";

const MOST_BYTES = 30e6;
const MOST_PIXELS = 60e6;

export class Pictures {
  readonly about: ImageEncoder;
  #files: Files;
  #body: Promise<Runtime> | undefined;

  constructor(files: Files, about: ImageEncoder) {
    this.#files = files;
    this.about = about;
  }

  /** Return the unit vector of a picture file. */
  async encode(file: Blob, progress?: Progress): Promise<Float32Array> {
    const size = this.about.input.size_px;
    const pixels = await read(file, size);
    this.#body ??= Runtime.load(this.#files, this.about.body, progress).catch((error) => {
      this.#body = undefined;
      throw error;
    });
    const body = await this.#body;
    return unit(await body.run({ [this.about.input.name]: { data: pixels, dims: [1, size, size, 3] } }, this.about.output));
  }
}

/** Read a picture as the encoder sees it: the largest centered square, `size` by `size` RGB. */
async function read(file: Blob, size: number): Promise<Uint8Array> {
  if (file.size > MOST_BYTES) throw new SiteError(`The picture has ${Math.round(file.size / 1e6)} MB, at most ${MOST_BYTES / 1e6} are read. Make it smaller.`);
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new SiteError("This file is no picture that the browser can read. Give a PNG, JPEG or WebP.");
  }
  const side = Math.min(bitmap.width, bitmap.height);
  if (bitmap.width * bitmap.height > MOST_PIXELS || side < 4) throw new SiteError(`A picture of ${bitmap.width} × ${bitmap.height} pixels cannot be taken. Cut the galaxy out.`);
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.drawImage(bitmap, -Math.floor((bitmap.width - side) / 2), -Math.floor((bitmap.height - side) / 2));
  bitmap.close();
  return resized(context.getImageData(0, 0, side, side).data, side, size);
}

/** Resize a square RGBA picture to RGB by an antialiased bicubic filter, columns first, rounded between the passes. */
export function resized(rgba: Uint8ClampedArray, side: number, size: number): Uint8Array {
  const weights = taps(side, size);
  const across = new Uint8ClampedArray(side * size * 3);
  for (let y = 0; y < side; y++)
    for (let x = 0; x < size; x++) {
      const { first, values } = weights[x]!;
      for (let band = 0; band < 3; band++) {
        let sum = 0;
        for (let n = 0; n < values.length; n++) sum += values[n]! * rgba[(y * side + first + n) * 4 + band]!;
        across[(y * size + x) * 3 + band] = sum;
      }
    }
  const result = new Uint8ClampedArray(size * size * 3);
  for (let y = 0; y < size; y++) {
    const { first, values } = weights[y]!;
    for (let x = 0; x < size; x++)
      for (let band = 0; band < 3; band++) {
        let sum = 0;
        for (let n = 0; n < values.length; n++) sum += values[n]! * across[((first + n) * size + x) * 3 + band]!;
        result[(y * size + x) * 3 + band] = sum;
      }
  }
  return new Uint8Array(result.buffer);
}

/** Return where each output pixel takes its light from, and by which weights. */
function taps(from: number, to: number): { first: number; values: number[] }[] {
  const scale = Math.max(1, from / to);
  return Array.from({ length: to }, (_, x) => {
    const center = ((x + 0.5) * from) / to;
    const first = Math.max(0, Math.floor(center - 2 * scale + 0.5));
    const last = Math.min(from, Math.floor(center + 2 * scale + 0.5));
    const values = Array.from({ length: last - first }, (_, n) => cubic((first + n - center + 0.5) / scale));
    const sum = values.reduce((a, b) => a + b, 0);
    return { first, values: values.map((value) => value / sum) };
  });
}

function cubic(x: number): number {
  const a = -0.5;
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}
