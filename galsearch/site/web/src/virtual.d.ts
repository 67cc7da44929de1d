declare module "virtual:engines" {
  import type { FileEntry } from "./files.ts";
  const engines: Record<"duckdbWasm" | "duckdbWorker" | "onnxWasm", FileEntry>;
  export default engines;
}
