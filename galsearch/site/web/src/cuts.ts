// Conditions in SQL, answered by DuckDB in a worker that is started when the first one is asked. Whoever no longer
// waits ends the worker: that stops whatever it does, and the next condition starts another.
import engines from "virtual:engines";
import type * as DuckDB from "@duckdb/duckdb-wasm";
import { cached } from "./cache.ts";
import { Canceled, ConditionError, SiteError, told } from "./errors.ts";
import { checkedCondition } from "./expression.ts";
import { Files, inflate, type FileEntry, type Progress } from "./files.ts";
import type { Site } from "./manifest.ts";

const WHOLE_BYTES = 4e6; // tables below this are read at once rather than piece by piece, each a round trip
const KEPT = 24; // answers

interface Running {
  db: DuckDB.AsyncDuckDB;
  connection: DuckDB.AsyncDuckDBConnection;
}

export class Cuts {
  #files: Files;
  #site: Site;
  #parts: Promise<{ wasm: string; worker: string }> | undefined;
  #running: Promise<Running> | undefined;
  #worker: Worker | undefined;
  #answers = new Map<string, Promise<Uint8Array>>();
  #asked: string | null = null;
  #stop: ((reason: Error) => void) | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(files: Files, site: Site) {
    this.#files = files;
    this.#site = site;
  }

  /** Return the bytes that the engine has, to be loaded once. */
  static bytes(): number {
    return (engines.duckdbWasm?.bytes ?? 0) + (engines.duckdbWorker?.bytes ?? 0);
  }

  static entries(): FileEntry[] {
    return [engines.duckdbWasm, engines.duckdbWorker];
  }

  get loaded(): boolean {
    return this.#running !== undefined;
  }

  /** Return which galaxies pass a condition, a byte each. */
  async mask(text: string, progress?: Progress): Promise<Uint8Array> {
    const where = checkedCondition(text);
    if (!this.#site.facts) throw new ConditionError("This site was exported without its tables, so it takes no condition in SQL. Use the sliders.");
    let found = this.#answers.get(where);
    if (!found) {
      const before = this.#turn;
      found = before.catch(() => {}).then(() => this.#ask(where, progress)); // one after another
      this.#turn = found;
      this.#answers.set(where, found);
      found.catch(() => this.#answers.delete(where));
      if (this.#answers.size > KEPT) this.#answers.delete(this.#answers.keys().next().value!);
    }
    return found;
  }

  /** End what is running now, unless it is this condition, which somebody still waits for. */
  cancel(unless?: string): void {
    if (unless === undefined || unless.trim() !== this.#asked) this.#stop?.(new Canceled("Canceled."));
  }

  async #ask(where: string, progress?: Progress): Promise<Uint8Array> {
    const stopped = new Promise<never>((_, reject) => (this.#stop = reject));
    this.#asked = where;
    stopped.catch(() => {});
    try {
      const asked = async () => {
        const { connection } = await this.#start(progress);
        const table = await connection.query(`SELECT site_row FROM galaxies WHERE (${where}\n)`);
        return table.getChildAt(0)!;
      };
      const rows = await Promise.race([asked(), stopped]);
      const mask = new Uint8Array(this.#site.rows);
      for (const row of rows.toArray() as Int32Array) mask[Number(row)] = 1;
      return mask;
    } catch (error) {
      if (error instanceof Canceled) this.#end();
      if (error instanceof Canceled || error instanceof SiteError) throw error;
      if (/out of memory|abort|unreachable|memory access/i.test(told(error))) this.#end();
      throw new ConditionError(plainError(told(error)));
    } finally {
      this.#stop = undefined;
      this.#asked = null;
    }
  }

  #start(progress?: Progress): Promise<Running> {
    return (this.#running ??= this.#open(progress).catch((error) => {
      this.#end();
      throw error instanceof SiteError ? error : new SiteError(`The SQL engine cannot be started (${told(error).slice(0, 200)}). Sliders work without it.`);
    }));
  }

  #end(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#running = undefined;
  }

  async #open(progress?: Progress): Promise<Running> {
    this.#parts ??= this.#unpacked(progress).catch((error) => {
      this.#parts = undefined;
      throw error;
    });
    const [duckdb, parts] = await Promise.all([import("@duckdb/duckdb-wasm"), this.#parts]);
    const worker = (this.#worker = new Worker(parts.worker));
    const db = new duckdb.AsyncDuckDB(new duckdb.VoidLogger(), worker);
    await db.instantiate(parts.wasm, null);
    await db.open({
      maximumThreads: 1,
      filesystem: { reliableHeadRequests: false, allowFullHTTPReads: true, forceFullHTTPReads: false },
    });
    const connection = await db.connect();
    for (const name of ["autoload_known_extensions", "autoinstall_known_extensions"]) await connection.query(`SET ${name}=false`);
    const { files } = this.#site.facts!;
    for (const [n, { file }] of files.entries()) {
      await connection.query(`ATTACH '${await this.#attachable(db, file, n, progress)}' AS f${n} (READ_ONLY)`);
    }
    const every = files.map((_, n) => `SELECT * FROM f${n}.galaxies`);
    await connection.query(`CREATE VIEW galaxies AS ${every.join(" UNION ALL BY NAME ")}`);
    await macros(connection);
    await connection.query("SET lock_configuration=true");
    return { db, connection };
  }

  async #unpacked(progress?: Progress): Promise<{ wasm: string; worker: string }> {
    const [wasm, worker] = await Promise.all([engines.duckdbWasm, engines.duckdbWorker].map((entry) => cached(this.#files, entry, progress).then(inflate)));
    return {
      wasm: URL.createObjectURL(new Blob([wasm!], { type: "application/wasm" })),
      worker: URL.createObjectURL(new Blob([worker!], { type: "text/javascript" })),
    };
  }

  /** Return the name to attach a file by: its address where the host answers ranges and it is long, else a copy of it. */
  async #attachable(db: DuckDB.AsyncDuckDB, file: FileEntry, n: number, progress?: Progress): Promise<string> {
    const part = file.parts[0]!;
    const every = this.#site.facts!.files.reduce((sum, one) => sum + one.file.bytes, 0);
    if (every > WHOLE_BYTES && (await this.#files.answersRanges(part))) return this.#files.address(part).replaceAll("'", "%27");
    const bytes = await this.#files.whole(file, progress);
    await db.registerFileBuffer(`facts-${n}.duckdb`, bytes.slice()); // which goes to the worker
    return `facts-${n}.duckdb`;
  }
}

/** Let a condition use the functions that the file brings, wherever it is asked. */
async function macros(connection: DuckDB.AsyncDuckDBConnection): Promise<void> {
  const table = await connection.query(
    "SELECT function_name AS name, array_to_string(parameters, ', ') AS parameters, macro_definition AS body " +
      "FROM duckdb_functions() WHERE database_name = 'f0' AND function_type = 'macro'",
  );
  for (const { name, parameters, body } of table.toArray()) {
    await connection.query(`CREATE TEMP MACRO IF NOT EXISTS "${name}"(${parameters}) AS (${body})`);
  }
}

/** Return DuckDB's message without where in our statement it is, and what to do about an extension. */
export function plainError(message: string): string {
  const [first = ""] = message.replace(/^(\w+ )?Error: /, "").split(/\n\s*\n?LINE \d+:/);
  if (/extension/i.test(first)) return "This function belongs to an extension of DuckDB that no static site has. Write the condition without it.";
  return first.trim().slice(0, 600);
}
