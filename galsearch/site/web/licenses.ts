// The licenses of what is bundled, as one text. Two packages carry no license file; their texts are in ./licenses.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const TOP = ["@duckdb/duckdb-wasm", "onnxruntime-web"];

/** Return names, versions and license texts of the packages that the page is made of, and of theirs. */
export function licenses(home: string): string {
  const names = new Set<string>();
  const visit = (name: string): void => {
    if (names.has(name) || name.startsWith("@types/")) return;
    const folder = join(home, "node_modules", name);
    if (!existsSync(folder)) return;
    names.add(name);
    Object.keys(manifest(folder).dependencies ?? {}).forEach(visit);
  };
  TOP.forEach(visit);
  const texts = [...names].sort().map((name) => {
    const folder = join(home, "node_modules", name);
    const { version, license } = manifest(folder);
    return `${"=".repeat(80)}\n${name} ${version} (${license})\n${"=".repeat(80)}\n\n${text(home, folder, name, license).trim()}\n`;
  });
  const head = "This page is part of galsearch. It bundles the packages below, whole or in part; DuckDB and ONNX Runtime are inside\nthe WebAssembly files of the first two.\n";
  return [head, ...texts].join("\n");
}

function manifest(folder: string): { version: string; license?: string; dependencies?: Record<string, string> } {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
}

function text(home: string, folder: string, name: string, license = ""): string {
  const own = join(home, "licenses", `${name.replace("@", "").replace("/", "-")}.txt`);
  if (existsSync(own)) return readFileSync(own, "utf8");
  const files = readdirSync(folder).filter((file) => /^(licen[cs]e|notice|copying)/i.test(file));
  if (files.length) return files.map((file) => readFileSync(join(folder, file), "utf8")).join("\n\n");
  const standard = join(home, "licenses", `${license.toLowerCase()}.txt`);
  if (existsSync(standard)) return readFileSync(standard, "utf8");
  throw new Error(`${name} is bundled and carries no license text: put it in licenses/, and see that it is the right one`);
}
