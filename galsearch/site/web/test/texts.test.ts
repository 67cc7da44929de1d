import { expect, test } from "vitest";
import { toCsv, toPython, toSql, toVotable, type Table } from "../src/exports.ts";
import { checkedCondition } from "../src/expression.ts";
import { separation, within } from "../src/filters.ts";
import { checked, type Column, type Site } from "../src/manifest.ts";
import { empty, fromHash, readPosition, toHash } from "../src/query.ts";
import { resized } from "../src/pictures.ts";
import { Tokenizer } from "../src/tokens.ts";
import { counted, weightsOf } from "../src/votes.ts";
import { ticks } from "../src/view/dom.ts";

// ---- conditions

test.each(["z < 0.05 AND mag_r < 17", "name ILIKE '%ring; drop%'", "abs(color_gr) BETWEEN 0 AND 1", "x IN (1, 2)", "CASE WHEN z > 1 THEN true ELSE false END", '"odd ""name""" IS NOT NULL', "(a < 1) OR NOT (b >= 2e-3)", "CAST(z AS DECIMAL) < 2"])(
  "%s is a condition",
  (text) => expect(checkedCondition(text)).toBe(text),
);

test.each([
  ["", /empty/],
  ["1=1; DROP TABLE galaxies", /one condition/],
  ["1=1) UNION SELECT 1 --", /does not belong|closes|Comments/],
  ["1=1 /* x", /Comments/],
  ["z < 1)", /closes/],
  ["(z < 1", /not closed/],
  ["name = 'x", /not closed/],
  ["z IN (SELECT 1)", /SELECT/],
  ["read_csv('https://example.org') IS NULL", /not available/],
  ['"read_text"(\'x\') IS NULL', /not available/],
  ["getenv('HOME') = 'x'", /not available/],
  ["length(repeat('x', 1000000000)) > 1", /not available/],
  ["e'\\x41' = 'A'", /escapes/],
  ["$1 < 2", /does not belong/],
  ["ATTACH 'x'", /does not belong/],
  ["z".repeat(5000), /at most/],
  ["(".repeat(80) + "1" + ")".repeat(80), /too deeply/],
])("%s is refused", (text, why) => expect(() => checkedCondition(text)).toThrow(why));

// ---- links

test("a state survives its link", () => {
  const state = empty();
  state.query.terms = [{ kind: "text", value: "spiral <b>\"'&#", weight: 1 }, { kind: "object", value: "a/b c", weight: -0.5 }];
  Object.assign(state.query, { where: "z < 1", ranges: { mag_r: [null, 17] }, near: { ra: 189.2, dec: -62.2, radius_arcsec: 60 }, space: "spectrum", k: 96 });
  Object.assign(state, { view: "table", object: "a/b c" });
  expect(fromHash(toHash(state))).toEqual({ state, wrong: [] });
  expect(toHash(empty())).toBe("");
});

test.each(["#q=%", "#q=[]", "#q=null", "#q=12", `#q=${"x".repeat(50_000)}`, "#q=%7B%22terms%22%3A%22x%22%7D", "#q=%7B%22near%22%3A%5B400%2C0%2C1%5D%7D", "#q=%7B%22k%22%3A1e9%7D", "#q=%7B%22where%22%3A%7B%7D%7D", "#q=%7B%22terms%22%3A%5B%5B%22image%22%2C%22x%22%5D%5D%7D"])(
  "%s is passed over and told",
  (hash) => {
    const { state, wrong } = fromHash(hash);
    expect(wrong).toHaveLength(1);
    expect(state).toEqual(empty());
  },
);

test("a link cannot reach into prototypes", () => {
  const { state } = fromHash(`#q=${encodeURIComponent('{"__proto__": {"polluted": 1}, "ranges": {"__proto__": [1, 2]}}')}`);
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  expect(state.query.terms).toEqual([]);
});

test.each([
  ["189.2 +62.2", [189.2, 62.2]],
  ["189.2, -62.2", [189.2, -62.2]],
  ["12:36:49.4 +62:12:58", [189.2058, 62.2161]],
  ["12h36m49.4s −0d12m58s", [189.2058, -0.2161]],
  ["12 36 49.4 -00 12 58", [189.2058, -0.2161]],
  ["400 0", null],
  ["12:61:00 +1:0:0", null],
  ["hello", null],
])("%s is read as a position", (text, wanted) => {
  const got = readPosition(text);
  if (!wanted) return expect(got).toBeNull();
  expect(got!.ra).toBeCloseTo(wanted[0]!, 3);
  expect(got!.dec).toBeCloseTo(wanted[1]!, 3);
});

// ---- filters, votes, pictures

test("angles are right across 0h and at the pole", () => {
  expect(separation(359.9999, 0, 0.0001, 0)).toBeCloseTo(0.72, 5);
  expect(separation(10, 90, 200, 90)).toBeCloseTo(0, 6);
  expect(separation(0, 0, 180, 0)).toBeCloseTo(648_000, 3);
});

test("a missing value passes no range, and the ends belong to it", () => {
  expect(Array.from(within(Float32Array.of(0.1, 0.2, NaN, 0.3), [0.1, 0.2]))).toEqual([1, 1, 0, 0]);
  expect(Array.from(within(Float64Array.of(NaN, -5), [null, 0]))).toEqual([0, 1]);
});

const BASE = { name: "b", target: "t", space: "image", k: 3, weight: "exp", tau: 1, members: { parts: [], bytes: 0 }, labels: ["a", "b"] };

test("votes are weighted by distance, and a tie has no winner", () => {
  const [near, far] = weightsOf([0.1, 1], "exp", 1);
  expect(near! / far!).toBeCloseTo(Math.exp(0.9));
  expect(weightsOf([0, 1], "inverse", 1)).toEqual([1, 0]);
  expect(weightsOf([1, 2], "rank", 1)).toEqual([1, 0.5]);
  expect(weightsOf([800, 801], "gaussian", 1)[0]).toBe(1);
  const voters = (labels: string[]) => labels.map((label, row) => ({ row, distance: 0.5, weight: 1, label }));
  expect(counted(voters(["a", "a", "b"]), { ...BASE, least: 0.5 }, [0.5, 0.5]).label).toBe("a");
  expect(counted(voters(["a", "b"]), BASE, [0.5, 0.5])).toMatchObject({ label: null, reason: "the votes are split" });
  expect(counted(voters(["a", "a", "b"]), { ...BASE, calibration: { far: 0.4 } }, [0.5, 0.5]).label).toBeNull();
  expect(counted(voters(["a", "a", "b"]), { ...BASE, least: 0.7 }, [0.5, 0.5]).label).toBeNull();
});

test("calibrated votes are probabilities that sum to one", () => {
  const voters = ["a", "a", "b"].map((label, row) => ({ row, distance: 0.5, weight: 1, label }));
  const found = counted(voters, { ...BASE, calibration: { fits: [{ k: 3, weight: "exp", tau: 1, pseudo: 0.5, power: 1.5 }] } }, [0.9, 0.1]);
  const raised = [(2 / 3 + 0.45) / 1.5, (1 / 3 + 0.05) / 1.5].map((one) => one ** 1.5);
  expect(found.shares[0]![1]).toBeCloseTo(raised[0]! / (raised[0]! + raised[1]!));
  expect(found.calibrated).toBe(true);
});

test("numbers are averaged by weight, with the error that held-out members had", () => {
  const voters = [1, 2, 4].map((value, row) => ({ row, distance: 0.5, weight: 1, label: String(value) }));
  const found = counted(voters, { ...BASE, kind: "number", calibration: { fits: [{ k: 3, weight: "exp", tau: 1, floor: 0.5, quantile: 2 }] } }, []);
  expect(found.value).toBeCloseTo(7 / 3);
  expect(found.uncertainty).toBeCloseTo(2 * (Math.sqrt(14 / 6) + 0.5));
});

test("a picture of one color stays so when it is made smaller, and its mean is kept", () => {
  const flat = Uint8ClampedArray.from({ length: 90 * 90 * 4 }, (_, n) => [10, 120, 250, 255][n % 4]!);
  expect(Array.from(resized(flat, 90, 64).slice(0, 3))).toEqual([10, 120, 250]);
  const ramp = Uint8ClampedArray.from({ length: 128 * 128 * 4 }, (_, n) => (Math.floor(n / 4) % 128) * 2);
  const small = resized(ramp, 128, 64);
  const mean = small.reduce((sum, one) => sum + one, 0) / small.length;
  expect(mean).toBeCloseTo(127, 0);
});

// ---- tokens

test("words fall into the longest pieces that are known", () => {
  const vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "spiral", "gala", "##xy", "##x", "-", "on", "edge", "é", "e"];
  const about = { max_tokens: 8, max_characters: 100, tokenizer: { lowercase: true, strip_accents: null, clean_text: true, handle_chinese_chars: true, unknown: "[UNK]", prefix: "##", max_characters_per_word: 10, first: [2], last: [3], added_tokens: { "[SEP]": 3 } } };
  const tokenizer = new Tokenizer(vocab, about);
  expect(tokenizer.encode("Edge-on SPIRAL")).toEqual([2, 10, 8, 9, 4, 3]);
  expect(tokenizer.encode("galaxy galax galaxyz")).toEqual([2, 5, 6, 5, 7, 1, 3]);
  expect(tokenizer.encode("É [SEP]")).toEqual([2, 12, 3, 3]);
  expect(tokenizer.encode("on on on on on on on on on")).toHaveLength(8);
  expect(tokenizer.encode("")).toEqual([2, 3]);
});

// ---- exports

const SITE = { title: "A <b> & \"c\"", software: "galsearch", spaces: [{ name: "image" }], columns: [] } as unknown as Site;
const COLUMN = { name: "note", type: "VARCHAR", unit: null, ucd: "meta.note", description: "<x>" } as Column;
const TABLE: Table = { names: ["object_id", "score", "note"], columns: [{ ...COLUMN, name: "object_id" }, null, COLUMN], rows: [["a,b", 0.5, '=cmd|"x"'], ["c", 0.25, null], ["d", 0.1, "</TD>\u0001]]>"]] };

test("CSV quotes what it must and runs nothing in a spreadsheet", () => {
  expect(toCsv(TABLE)).toBe('object_id,score,note\r\n"a,b",0.5,"\'=cmd|""x"""\r\nc,0.25,\r\nd,0.1,</TD>\u0001]]>\r\n');
});

test("VOTable escapes what comes from data", () => {
  const text = toVotable(SITE, TABLE);
  expect(text).toContain("&lt;/TD&gt;�]]&gt;");
  expect(text.match(/<TR>/g)).toHaveLength(3);
  expect(text).toContain('datatype="double"');
  expect(text).not.toContain("<b>");
});

test("the question as code is quoted", () => {
  const { query } = empty();
  query.terms = [{ kind: "text", value: 'a "ring"', weight: 1 }, { kind: "object", value: "x", weight: -0.5 }];
  query.ranges = { mag_r: [null, 17] };
  query.near = { ra: 1, dec: 2, radius_arcsec: 3 };
  const python = toPython(SITE, query, "a.duckdb");
  expect(python).toContain('atlas.search(atlas.embed("a \\"ring\\"") - 0.5 * atlas.embed(atlas["x"]), where="mag_r <= 17", near=(1, 2), radius_arcsec=3, k=48)');
  query.terms = [{ kind: "text", value: "it's", weight: 1 }];
  expect(toSql(query, "a.duckdb")).toContain("concept('it''s')");
});

// ---- site.json

const FILE = { parts: [{ path: "data/a.bin", bytes: 8, sha256: "" }], bytes: 8 };
const GOOD = { format: "galsearch.site", version: "1.3", title: "T", rows: 2, spaces: [], columns: [], cards: FILE, card_starts: FILE };

test("a site of a later minor version is read", () => expect(checked(JSON.stringify(GOOD)).rows).toBe(2));

test.each([
  ["{", /no JSON/],
  [{ ...GOOD, format: "x" }, /format/],
  [{ ...GOOD, version: "2.0" }, /version 2\.0/],
  [{ ...GOOD, rows: -1 }, /rows/],
  [{ ...GOOD, cards: { parts: [{ path: "https://example.org/x", bytes: 8 }], bytes: 8 } }, /outside/],
  [{ ...GOOD, cards: { parts: [{ path: "../x", bytes: 8 }], bytes: 8 } }, /outside/],
  [{ ...GOOD, cards: { parts: [{ path: "//example.org/x", bytes: 8 }], bytes: 8 } }, /outside/],
  [{ ...GOOD, cards: { parts: [{ path: "x", bytes: 7 }], bytes: 8 } }, /add up/],
  [{ ...GOOD, columns: 3 }, /columns/],
  ["null", /format/],
])("a site.json that is wrong is refused: %#", (text, why) => expect(() => checked(typeof text === "string" ? text : JSON.stringify(text))).toThrow(why as RegExp));

test("ticks are round and inside", () => {
  expect(ticks(3800, 9200, 6)).toEqual([4000, 5000, 6000, 7000, 8000, 9000]);
  expect(ticks(1, 1, 5)).toEqual([1]);
});
