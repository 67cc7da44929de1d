// Large files that stay from visit to visit: in Cache Storage, under the site's own address.
import { Files, type FileEntry, type Progress } from "./files.ts";

const PREFIX = "galsearch-site ";

/** Return a whole file, from Cache Storage where a visit before has put it there. Its name says its content. */
export async function cached(files: Files, entry: FileEntry, progress?: Progress): Promise<Uint8Array<ArrayBuffer>> {
  const address = files.address(entry.parts[0]!);
  const cache = await open(address);
  const held = await cache?.match(address).catch(() => undefined);
  if (held) {
    const bytes = new Uint8Array(await held.arrayBuffer());
    if (bytes.length === entry.bytes) {
      progress?.(bytes.length);
      return bytes;
    }
  }
  const bytes = await files.whole(entry, progress);
  await cache?.put(address, new Response(bytes)).catch(() => {}); // a full disk costs only the next visit's time
  files.forget(entry);
  return bytes;
}

/** Open the cache of this site; nothing where the browser has none (a page that is not served securely). */
async function open(address: string): Promise<Cache | null> {
  if (!("caches" in globalThis)) return null;
  try {
    return await caches.open(PREFIX + new URL(".", new URL("..", address)).pathname);
  } catch {
    return null;
  }
}

/** Let go of what an earlier export of this site has left. */
export async function clean(files: Files, entries: FileEntry[]): Promise<void> {
  const first = entries[0]?.parts[0];
  const cache = first ? await open(files.address(first)) : null;
  if (!cache) return;
  const known = new Set(entries.map((entry) => files.address(entry.parts[0]!)));
  for (const request of await cache.keys()) if (!known.has(request.url)) await cache.delete(request);
}
