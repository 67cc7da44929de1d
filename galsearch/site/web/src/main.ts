import "./view/style.css";
import { Atlas } from "./atlas.ts";
import { told } from "./errors.ts";
import { readSite } from "./manifest.ts";
import { h } from "./view/dom.ts";
import { Page } from "./view/page.ts";
import { restoreTheme } from "./view/theme.ts";

restoreTheme();
const root = document.getElementById("page")!;
try {
  const base = new URL(".", document.baseURI).href;
  const site = await readSite(new URL("site.json", base).href);
  document.title = `${site.title} · galsearch`;
  new Page(new Atlas(site, base), root).start();
} catch (error) {
  root.replaceChildren(h("main", { class: "inner" }, h("h1", { class: "unseen" }, "galsearch"), h("p", { class: "error", role: "alert" }, told(error))));
}
