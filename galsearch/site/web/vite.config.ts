// How the page is built: everything below ../assets, with relative addresses, and the engines gzipped in parts that
// every static host takes. The engines' parts are listed by `virtual:engines`, and are read by src/engines.ts.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";
import { licenses } from "./licenses.ts";

const PART_BYTES = 20_000_000; // some hosts refuse files above 25 MB
const require = createRequire(import.meta.url);
const ENGINES = {
  duckdbWasm: "@duckdb/duckdb-wasm/dist/duckdb-eh.wasm",
  duckdbWorker: "@duckdb/duckdb-wasm/dist/duckdb-browser-eh.worker.js",
  onnxWasm: "onnxruntime-web/ort-wasm-simd-threaded.wasm",
};

function engines(): Plugin {
  const id = "\0virtual:engines";
  let isBuild = false;
  return {
    name: "engines",
    configResolved: (config) => void (isBuild = config.command === "build"),
    resolveId: (name) => (name === "virtual:engines" ? id : null),
    load(name) {
      if (name !== id) return null;
      if (!isBuild) return "export default {};";
      const listed = Object.fromEntries(
        Object.entries(ENGINES).map(([engine, path]) => {
          const bytes = withoutComment(readFileSync(require.resolve(path)), path);
          const packed = gzipSync(bytes, { level: 9 });
          const parts = [];
          for (let from = 0; from < packed.length; from += PART_BYTES) {
            const source = packed.subarray(from, from + PART_BYTES);
            const sha256 = createHash("sha256").update(source).digest("hex");
            const fileName = `assets/${engine}-${sha256.slice(0, 12)}.bin`;
            this.emitFile({ type: "asset", fileName, source });
            parts.push({ path: fileName, bytes: source.length, sha256 });
          }
          return [engine, { parts, bytes: packed.length }];
        }),
      );
      return `export default ${JSON.stringify(listed)};`;
    },
  };
}

/** Take the address of a source map that is not shipped out of a script. */
function withoutComment(bytes: Buffer, path: string): Buffer {
  return path.endsWith(".js") ? Buffer.from(bytes.toString("utf8").replace(/\n\/\/# sourceMappingURL=.*\s*$/, "\n")) : bytes;
}

/** Leave out a second copy of the runtime: the page hands it over itself. */
function noCopies(): Plugin {
  return {
    name: "no-copies",
    generateBundle(_, bundle) {
      for (const name of Object.keys(bundle)) if (/ort-wasm.*\.wasm$/.test(name)) delete bundle[name];
    },
  };
}

function licenseTexts(): Plugin {
  return {
    name: "licenses",
    generateBundle() {
      this.emitFile({ type: "asset", fileName: "licenses.txt", source: licenses(fileURLToPath(new URL(".", import.meta.url))) });
    },
  };
}

export default defineConfig({
  base: "./",
  publicDir: false,
  plugins: [engines(), noCopies(), licenseTexts()],
  build: {
    outDir: "../assets",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 1500,
  },
  test: { include: ["test/**/*.test.ts"], environment: "node" },
} as Parameters<typeof defineConfig>[0]);
