// From an object_id to its row, without an engine: a sorted list in blocks, of which one is read.
import { Files, type FileEntry } from "./files.ts";

export interface Ids {
  blocks: FileEntry;
  index: FileEntry;
}

export class Lookup {
  #files: Files;
  #about: Ids;
  #index: Promise<[string, number, number][]> | undefined;
  #blocks = new Map<number, Promise<Map<string, number>>>();

  constructor(files: Files, about: Ids) {
    this.#files = files;
    this.#about = about;
  }

  /** Return the row of an object, null where the site has none of that id. */
  async row(id: string): Promise<number | null> {
    this.#index ??= this.#files.whole(this.#about.index).then(json) as Promise<[string, number, number][]>;
    this.#index.catch(() => (this.#index = undefined));
    const index = await this.#index;
    let [low, high] = [0, index.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (index[middle]![0] <= id) low = middle + 1;
      else high = middle;
    }
    if (!low) return null;
    let block = this.#blocks.get(low - 1);
    if (!block) {
      const [, from, bytes] = index[low - 1]!;
      block = this.#files.range(this.#about.blocks, from, from + bytes).then((got) => new Map(json(got) as [string, number][]));
      block.catch(() => this.#blocks.delete(low - 1));
      this.#blocks.set(low - 1, block);
    }
    return (await block).get(id) ?? null;
  }
}

function json(bytes: Uint8Array): unknown {
  return JSON.parse(new TextDecoder().decode(bytes));
}
