import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type FileEntry, Files } from "../src/files.ts";
import type { Space } from "../src/manifest.ts";
import { Best, combined, unit, VectorSpace, wantedCells } from "../src/search.ts";

const [DIM, CELLS] = [16, 12];
const stored = new Map<string, Uint8Array>();

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function normal(draw: () => number): number {
  return Math.sqrt(-2 * Math.log(draw() + 1e-12)) * Math.cos(2 * Math.PI * draw());
}

function file(name: string, values: ArrayBufferView): FileEntry {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  stored.set(name, bytes);
  return { parts: [{ path: name, bytes: bytes.length }], bytes: bytes.length };
}

/** Make vectors in clumps, in the order of their cells, and what a site stores of them. */
function made(count: number, withCells: boolean): { space: Space; vectors: Float32Array[] } {
  const draw = random(count);
  const centers = Array.from({ length: CELLS }, () => unit(Float32Array.from({ length: DIM }, () => normal(draw))));
  const vectors: Float32Array[] = [];
  const starts = [0];
  for (const center of centers) {
    for (let n = 0; n < count / CELLS; n++) vectors.push(unit(center.map((value) => value + 0.25 * normal(draw))));
    starts.push(vectors.length);
  }
  const [codes, residuals] = [new Int8Array(count * DIM), new Int8Array(count * DIM)];
  const [scales, rest] = [new Float32Array(count), new Float32Array(count)];
  vectors.forEach((vector, at) => {
    scales[at] = Math.max(...vector.map(Math.abs)) / 127;
    const code = vector.map((value) => Math.round(value / scales[at]!));
    const left = vector.map((value, i) => value - scales[at]! * code[i]!);
    rest[at] = Math.max(...left.map(Math.abs)) / 127 || 1;
    codes.set(code, at * DIM);
    residuals.set(left.map((value) => Math.round(value / rest[at]!)), at * DIM);
  });
  const space: Space = {
    name: "image",
    modality: "image",
    dim: DIM,
    codes: file("codes", codes),
    scales: file("scales", scales),
    residuals: file("residuals", residuals),
    residual_scales: file("residual_scales", rest),
    site_rows: null,
    cells: withCells
      ? { count: CELLS, centroids: file("centroids", Float32Array.from(centers.flatMap((one) => [...one]))), starts: file("starts", Uint32Array.from(starts)), probes: 3, probes_words: 5 }
      : null,
    words: "text",
  };
  return { space, vectors };
}

function brute(vectors: Float32Array[], query: Float32Array, k: number, passes = (_: number) => true): number[] {
  const scored = vectors.map((vector, row) => ({ row, score: vector.reduce((sum, value, i) => sum + value * query[i]!, 0) }));
  return scored.filter(({ row }) => passes(row)).sort((a, b) => b.score - a.score || a.row - b.row).slice(0, k).map(({ row }) => row);
}

beforeEach(() => {
  stored.clear();
  vi.stubGlobal("fetch", async (address: string, options: RequestInit = {}) => {
    const bytes = stored.get(address.slice("http://x/".length))!;
    const range = /bytes=(\d+)-(\d+)/.exec(new Headers(options.headers).get("Range") ?? "");
    if (!range) return new Response(bytes.slice());
    return new Response(bytes.slice(+range[1]!, +range[2]! + 1), { status: 206, headers: { "Content-Range": `bytes ${range[1]}-${range[2]}/${bytes.length}` } });
  });
});

afterEach(() => vi.unstubAllGlobals());

test("the best of all vectors are those of brute force in floating point", async () => {
  const { space, vectors } = made(1200, false);
  const searched = new VectorSpace(new Files("http://x/"), space, 1200);
  for (let n = 0; n < 20; n++) {
    const query = vectors[(n * 61) % 1200]!;
    const found = await searched.search(query, 10, null);
    expect(Array.from(found.rows)).toEqual(brute(vectors, query, 10));
    expect(found.exact).toBe(true);
    expect(found.scores[0]).toBeCloseTo(1, 4);
  }
});

test("only what the mask lets through is found", async () => {
  const { space, vectors } = made(600, false);
  const mask = Uint8Array.from({ length: 600 }, (_, row) => +(row % 7 === 3));
  const found = await new VectorSpace(new Files("http://x/"), space, 600).search(vectors[5]!, 10, mask);
  expect(Array.from(found.rows)).toEqual(brute(vectors, vectors[5]!, 10, (row) => row % 7 === 3));
});

test("cells by range find what brute force finds, and read no more than they need", async () => {
  const { space, vectors } = made(24_000, true);
  const files = new Files("http://x/");
  const searched = new VectorSpace(files, space, 24_000);
  const found = await searched.search(vectors[700]!, 10, null);
  expect(Array.from(found.rows)).toEqual(brute(vectors, vectors[700]!, 10));
  expect([found.cells, found.cellsOf, found.exact]).toEqual([3, CELLS, false]);
});

test("a condition that leaves few looks into every cell that has one", async () => {
  const { space, vectors } = made(24_000, true);
  const mask = new Uint8Array(24_000);
  for (const row of [17, 9_000, 23_999]) mask[row] = 1;
  const found = await new VectorSpace(new Files("http://x/"), space, 24_000).search(vectors[700]!, 10, mask);
  expect([...found.rows].sort((a, b) => a - b)).toEqual([17, 9_000, 23_999]);
  expect(found.exact).toBe(true);
});

test("vectors that are not of every galaxy have rows of their own", async () => {
  const { space, vectors } = made(120, false);
  space.site_rows = file("rows", Uint32Array.from({ length: 120 }, (_, at) => 2 * at + 1));
  const searched = new VectorSpace(new Files("http://x/"), space, 300);
  const found = await searched.search(vectors[7]!, 3, null);
  expect(found.rows[0]).toBe(15);
  expect(await searched.vectorOf(14)).toBeNull();
  const again = (await searched.vectorOf(15))!;
  expect(again.reduce((sum, value, i) => sum + value * vectors[7]![i]!, 0)).toBeCloseTo(1, 5);
  expect(Number.isNaN((await searched.cosines(vectors[7]!, [14]))[0])).toBe(true);
});

test("the best of equal scores is the lower number", () => {
  const best = new Best(3);
  for (const [id, score] of [[9, 1], [4, 1], [7, 2], [1, 1], [3, 0]] as const) best.push(id, score);
  expect(Array.from(best.sorted().ids)).toEqual([7, 1, 4]);
});

test("a heap keeps what sorting keeps", () => {
  const draw = random(3);
  const scores = Array.from({ length: 5000 }, () => Math.round(draw() * 300));
  const best = new Best(60);
  scores.forEach((score, id) => best.push(id, score));
  const order = scores.map((_, id) => id).sort((a, b) => scores[b]! - scores[a]! || a - b);
  expect(Array.from(best.sorted().ids)).toEqual(order.slice(0, 60));
});

test("terms that cancel out are refused", () => {
  const one = unit(Float32Array.of(1, 2));
  expect(() => combined([one, one], [1, -1])).toThrow(/cancel/);
});

test("a condition looks as much deeper as it leaves less", () => {
  const cells = { count: 100, centroids: { parts: [], bytes: 0 }, starts: { parts: [], bytes: 0 }, probes: 5, probes_words: 8, recall: [["like", 10, 4, 0.99], ["like", 1000, 20, 0.985], ["far", 1000, 32, 0.99], ["like", 1000, 64, 1]] as [string, number, number, number][] };
  expect(wantedCells(cells, "like", 10, false)).toBe(5);
  expect(wantedCells(cells, "words", 10, false)).toBe(8);
  expect(wantedCells(cells, "like", 900, true)).toBe(40); // 32 of "far", a quarter more
  expect(wantedCells(cells, "like", 5000, true)).toBe(100);
});
