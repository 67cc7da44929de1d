import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { asNumbers, type FileEntry, Files, inflate, joinSpans, Pages } from "../src/files.ts";

const BASE = "http://site.example/atlas/";
const SIZE = 700_000; // above what is fetched at once

interface Host {
  files: Map<string, Uint8Array>;
  asked: { path: string; range: string | null }[];
  answer?: (path: string, range: string | null, bytes: Uint8Array) => Response | undefined;
}

let host: Host;

function bytes(count: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length: count }, (_, n) => (n * 2654435761 * seed) >>> 13);
}

function entry(...contents: Uint8Array[]): FileEntry {
  const parts = contents.map((content, n) => {
    const path = `data/part-${host.files.size}-${n}.bin`;
    host.files.set(path, content);
    return { path, bytes: content.length, sha256: createHash("sha256").update(content).digest("hex") };
  });
  return { parts, bytes: contents.reduce((sum, one) => sum + one.length, 0) };
}

function ranged(bytes: Uint8Array, range: string): Response {
  const [, from, to] = /bytes=(\d+)-(\d+)/.exec(range)!;
  const piece = bytes.slice(Number(from), Number(to) + 1);
  return new Response(piece, { status: 206, headers: { "Content-Range": `bytes ${from}-${to}/${bytes.length}` } });
}

beforeEach(() => {
  host = { files: new Map(), asked: [] };
  vi.stubGlobal("fetch", async (address: string, options: RequestInit = {}) => {
    const path = address.slice(BASE.length);
    const range = new Headers(options.headers).get("Range");
    host.asked.push({ path, range });
    const content = host.files.get(path);
    if (!content) return new Response("", { status: 404 });
    const own = host.answer?.(path, range, content);
    if (own) return own;
    return range ? ranged(content, range) : new Response(content.slice());
  });
});

afterEach(() => vi.unstubAllGlobals());

test("a range over two parts is what the file has there", async () => {
  const [first, second] = [bytes(SIZE), bytes(SIZE, 7)];
  const file = entry(first, second);
  const got = await new Files(BASE).range(file, SIZE - 10, SIZE + 20);
  expect(got).toEqual(Uint8Array.from([...first.slice(-10), ...second.slice(0, 20)]));
  expect(host.asked.map((one) => one.range)).toEqual(["bytes=0-0", `bytes=${SIZE - 10}-${SIZE - 1}`, "bytes=0-19"]);
});

test("a host is asked once whether it answers ranges", async () => {
  const file = entry(bytes(SIZE));
  const files = new Files(BASE);
  await Promise.all([0, 1000, 2000, 3000].map((from) => files.range(file, from, from + 10)));
  expect(host.asked.filter((one) => one.range === "bytes=0-0")).toHaveLength(1);
});

test("without ranges a file is fetched whole, once, however many pieces are wanted", async () => {
  const content = bytes(SIZE);
  const file = entry(content);
  host.answer = (_, __, all) => new Response(all.slice());
  const files = new Files(BASE);
  const got = await Promise.all([5, 90_000, 600_000].map((from) => files.range(file, from, from + 50)));
  expect(got).toEqual([5, 90_000, 600_000].map((from) => content.slice(from, from + 50)));
  expect(host.asked.filter((one) => one.range === null)).toHaveLength(1);
});

test("a host that compresses on the fly and counts compressed bytes in ranges is read whole", async () => {
  const content = bytes(SIZE);
  const file = entry(content);
  host.answer = (_, range, all) =>
    range ? new Response(all.slice(0, 1), { status: 206, headers: { "Content-Range": "bytes 0-0/4711", "Content-Encoding": "gzip" } }) : new Response(all.slice());
  expect(await new Files(BASE).range(file, 100, 200)).toEqual(content.slice(100, 200));
});

test("a host that stops answering ranges is read whole from then on", async () => {
  const content = bytes(SIZE);
  const file = entry(content);
  const files = new Files(BASE);
  await files.range(file, 0, 10);
  host.answer = (_, __, all) => new Response(all.slice());
  expect(await files.range(file, 50, 60)).toEqual(content.slice(50, 60));
});

test.each([
  ["truncated", (all: Uint8Array) => all.slice(0, -5)],
  ["replaced", (all: Uint8Array) => all.map((one) => one ^ 1)],
])("a %s file is refused in one message with the remedy", async (_, damage) => {
  const file = entry(bytes(1000));
  const { path } = file.parts[0]!;
  host.files.set(path, damage(host.files.get(path)!));
  await expect(new Files(BASE).whole(file)).rejects.toThrow(/damaged or was replaced.*Reload/s);
});

test("a file of another length is refused by its ranges", async () => {
  const file = entry(bytes(SIZE));
  host.files.set(file.parts[0]!.path, bytes(SIZE + 1));
  await expect(new Files(BASE).range(file, 0, 10)).rejects.toThrow(/damaged or was replaced/);
});

test("a missing file is told, and can be asked again", async () => {
  const file = entry(bytes(1000));
  const { path } = file.parts[0]!;
  const content = host.files.get(path)!;
  host.files.delete(path);
  const files = new Files(BASE);
  await expect(files.whole(file)).rejects.toThrow(/is missing/);
  host.files.set(path, content);
  expect(await files.whole(file)).toHaveLength(1000);
});

test("a server error is asked again before it is told", async () => {
  const file = entry(bytes(1000));
  let failed = 0;
  host.answer = () => (failed++ < 1 ? new Response("", { status: 503 }) : undefined);
  expect(await new Files(BASE).whole(file)).toHaveLength(1000);
});

test("pieces that lie close come in one request, in the order asked", async () => {
  const content = bytes(SIZE);
  const file = entry(content);
  const spans = [{ from: 5000, to: 5100 }, { from: 10, to: 20 }, { from: 5200, to: 5300 }];
  const got = await new Files(BASE).ranges(file, spans, 200);
  expect(got).toEqual(spans.map(({ from, to }) => content.slice(from, to)));
  expect(host.asked).toHaveLength(3); // the probe, and two
});

test("spans are joined where the gap is small", () => {
  expect(joinSpans([{ from: 10, to: 20 }, { from: 0, to: 5 }, { from: 15, to: 18 }], 5)).toEqual([{ from: 0, to: 20 }]);
  expect(joinSpans([{ from: 0, to: 5 }, { from: 11, to: 20 }], 5)).toHaveLength(2);
});

test("numbers are read by index from pages", async () => {
  const values = Uint32Array.from({ length: 300_000 }, (_, n) => n * 3);
  const pages = new Pages(new Files(BASE), entry(new Uint8Array(values.buffer)), "uint32");
  expect(Array.from(await pages.at([299_999, 0, 4096, 4095]))).toEqual([899_997, 0, 12_288, 12_285]);
});

test("gzip is inflated, and what a host has inflated already stays", async () => {
  const content = bytes(1000).slice();
  content[0] = 0; // no gzip by chance
  expect(await inflate(new Uint8Array(gzipSync(content)))).toEqual(content);
  expect(await inflate(content as Uint8Array<ArrayBuffer>)).toEqual(content);
});

test("bytes that are not aligned are read as numbers too", () => {
  const buffer = new Uint8Array(9);
  buffer.set(new Uint8Array(Float32Array.of(1.5, -2).buffer), 1);
  expect(Array.from(asNumbers(buffer.subarray(1), "float32"))).toEqual([1.5, -2]);
});
