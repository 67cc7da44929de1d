// What this site is, whom to cite, and how the same file is opened in Python and DuckDB.
import { number, size, type Atlas } from "../atlas.ts";
import { toPython, toSql } from "../exports.ts";
import type { Query } from "../query.ts";
import { h, icon, ICONS } from "./dom.ts";

/** Return where the bundle is: its address, or its name where the site does not say one. */
function bundleAddress(atlas: Atlas): string {
  const { bundle, title } = atlas.site;
  if (bundle?.url) return new URL(bundle.url, document.baseURI).href;
  return bundle?.name ?? `${title}.duckdb`;
}

/** Open a dialog with sources, citation and provenance. */
export function about(atlas: Atlas): void {
  const { site } = atlas;
  const { citation } = site;
  const bibtex = citation?.bibtex || site.sources.map((source) => source.bibtex).filter(Boolean).join("\n\n");
  const sources = site.sources.map((source) =>
    h("li", {}, h("strong", {}, source.title), source.license ? ` · ${source.license}` : "", source.acknowledgement ? h("p", {}, source.acknowledgement) : null),
  );
  const steps = site.provenance.map((step) => {
    const { action = "", time = "", software = "" } = (step ?? {}) as Record<string, string>;
    return h("li", {}, [String(action), String(time).slice(0, 10), String(software)].filter(Boolean).join(" · "));
  });
  const models = site.spaces.map((space) => `${space.name}: ${space.dim} numbers${(space as { model?: string }).model ? ` by ${(space as { model?: string }).model}` : ""}`);
  dialog(
    "About this atlas",
    h("p", {}, `${site.title}: ${number(site.rows)} galaxies, exported ${site.created.slice(0, 10)} with ${site.software}. All of it runs in your browser; no question leaves it. ${size(atlas.files.received)} of data read so far.`),
    section("Cite", sources.length ? h("ul", {}, ...sources) : h("p", {}, "The atlas names no sources."), bibtex ? copied(bibtex) : null),
    section("Provenance", steps.length ? h("ul", {}, ...steps) : h("p", {}, "None is recorded."), site.bundle ? h("p", {}, `Made from ${site.bundle.name}, ${size(site.bundle.bytes)}, SHA-256 ${site.bundle.sha256}.`) : null),
    section("Vectors", h("p", {}, models.join("; ") || "none")),
    section("Software", h("p", {}, "galsearch, MIT. ", h("a", { href: "./licenses.txt", target: "_blank" }, "Licenses of what this page bundles"))),
  );
}

/** Open a dialog with the question as Python and as SQL. */
export function code(atlas: Atlas, query: Query): void {
  const { bundle } = atlas.site;
  const address = bundleAddress(atlas);
  const note = bundle?.url ? null : h("p", { class: "hint" }, `${address} is the file that this site was made from${bundle ? ` (${size(bundle.bytes)})` : ""}; ask who runs the site for it.`);
  dialog(
    "The same question elsewhere",
    note,
    bundle?.url ? h("p", {}, h("a", { href: address, download: bundle.name }, `Download ${bundle.name}`), ` · ${size(bundle.bytes)}`) : null,
    section("Python", h("p", { class: "hint" }, "pip install galsearch"), copied(toPython(atlas.site, query, address))),
    section("DuckDB, without galsearch", copied(toSql(query, address))),
  );
}

function section(title: string, ...children: (Node | null)[]): HTMLElement {
  return h("section", {}, h("h3", {}, title), ...children);
}

function copied(text: string): HTMLElement {
  const button = h("button", { class: "button small" }, "Copy");
  button.addEventListener("click", async () => {
    const isCopied = await copy(text);
    button.textContent = isCopied ? "Copied" : "Select the text and copy it";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return h("div", {}, h("pre", { tabIndex: 0 }, text), button);
}

export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function dialog(title: string, ...children: (Node | null)[]): void {
  const box = h("dialog", { "aria-label": title });
  const close = h("button", { class: "button bare", "aria-label": "Close", onclick: () => box.close() }, icon(ICONS.close));
  box.append(h("div", { class: "dialog" }, h("div", { class: "spread" }, h("h2", {}, title), close), ...children.filter((one): one is Node => one !== null)));
  box.addEventListener("click", (event) => event.target === box && box.close());
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
}
