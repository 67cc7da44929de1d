// One object: its picture, what can be asked with it, its spectrum, how its neighbors vote, its columns.
import type { Atlas } from "../atlas.ts";
import { alt, type Card } from "../cards.ts";
import { told } from "../errors.ts";
import type { Electorate } from "../votes.ts";
import { h, icon, ICONS, short } from "./dom.ts";
import { shownValue } from "./gallery.ts";
import { sparkline, spectrumPlot } from "./plots.ts";

export interface PanelActions {
  close(): void;
  like(card: Card, space: string | null): void;
  add(card: Card, weight: number): void;
  open(id: string): void;
}

/** Draw an object beside the results. */
export function panel(atlas: Atlas, card: Card, space: string | null, actions: PanelActions): HTMLElement {
  const head = h("div", { class: "spread" }, h("h2", { tabIndex: -1 }, card.id), h("button", { class: "button bare", "aria-label": "Close", onclick: actions.close }, icon(ICONS.close)));
  const picture = card.picture ? h("img", { class: "portrait", src: card.picture, alt: alt(card) }) : atlas.spectra ? null : h("div", { class: "portrait none" }, "no image");
  const others = atlas.site.spaces.filter((one) => one.name !== (space ?? atlas.main?.name));
  const acts = h(
    "div",
    { class: "acts" },
    h("button", { class: "button primary wide", onclick: () => actions.like(card, space) }, icon(ICONS.search), "More like this"),
    h("button", { class: "button", onclick: () => actions.add(card, 1) }, "Plus this"),
    h("button", { class: "button", onclick: () => actions.add(card, -0.5) }, "Minus this"),
    ...others.map((one) => h("button", { class: "button wide", onclick: () => actions.like(card, one.name) }, icon(ICONS.search), `More by ${one.name}`)),
  );
  const first = h("div", { class: picture ? "first" : "first alone" }, picture, atlas.main && acts);
  const parts = [head, first, ...(card.caption ? [h("p", { class: "words" }, card.caption)] : [])];
  const box = h("aside", { class: "panel", "aria-label": `Object ${card.id}` }, ...parts);
  if (atlas.spectra) box.append(spectrum(atlas, card));
  for (const base of atlas.bases) box.append(votes(atlas, base, card, actions));
  box.append(facts(atlas, card), elsewhere(card));
  return box;
}

function spectrum(atlas: Atlas, card: Card): HTMLElement {
  const part = h("section", { class: "part" }, h("h3", {}, "Spectrum"), h("p", { class: "hint" }, "Reading …"));
  atlas.spectra!.get(card.row).then(
    (found) => {
      if (!found) return part.remove();
      const plot = spectrumPlot(found, atlas.site.lines, card.id);
      part.lastElementChild!.replaceWith(plot);
    },
    (error) => part.lastElementChild!.replaceWith(h("p", { class: "error" }, told(error))),
  );
  return part;
}

function votes(atlas: Atlas, electorate: Electorate, card: Card, actions: PanelActions): HTMLElement {
  const { base } = electorate;
  const part = h("section", { class: "part" }, h("h3", {}, `${base.target} by ${base.k} neighbors of “${base.name}”`), h("p", { class: "hint" }, "Counting …"));
  electorate.on(card.row).then(
    async (found) => {
      if (!found) return part.remove();
      const voters = h("div", { class: "voters" });
      const how = base.weight === "exp" || base.weight === "gaussian" ? `weighted by ${base.weight}, length ${short(base.tau)}` : `weighted by ${base.weight}`;
      part.lastElementChild!.remove();
      part.append(
        h("p", { class: "label" }, found.label ?? (found.value !== null ? `${short(Number(found.value.toPrecision(4)))}${found.uncertainty === null ? "" : ` ± ${short(Number(found.uncertainty.toPrecision(2)))}`}` : `no answer: ${found.reason ?? "no votes"}`)),
        h("div", { class: "votes" }, ...found.shares.slice(0, 6).map(([label, share]) => bar(label, share))),
        h("p", { class: "hint" }, `${found.value !== null ? "Mean of the votes" : found.calibrated ? "Probabilities" : "Shares of the votes"}, ${how}. Why: who voted.`),
        voters,
      );
      const cards = await Promise.all(atlas.cards.get(found.voters.map((voter) => voter.row)));
      found.voters.forEach((voter, n) => {
        const one = cards[n]!;
        const shown = one.picture ? h("img", { class: "picture", src: one.picture, alt: "", width: 76, height: 76 }) : (atlas.spectra ? sparkline(atlas.spectra, one.row, one.id) : h("span", { class: "picture none" }, "no image"));
        const said = base.kind === "number" ? short(Number(voter.label)) : voter.label;
        const label = `${one.id} voted ${said}, at distance ${voter.distance.toFixed(3)}, weight ${voter.weight.toFixed(2)}`;
        voters.append(h("button", { class: "voter", "aria-label": label, title: label, onclick: () => actions.open(one.id) }, shown, h("span", {}, said), h("span", {}, `d ${voter.distance.toFixed(2)}`)));
      });
    },
    (error) => part.lastElementChild!.replaceWith(h("p", { class: "error" }, told(error))),
  );
  return part;
}

function bar(label: string, share: number): HTMLElement {
  const length = h("i");
  length.style.width = `${(100 * share).toFixed(1)}%`;
  return h("div", { class: "vote" }, h("span", {}, label), h("span", {}, length), h("b", {}, `${Math.round(100 * share)} %`));
}

function facts(atlas: Atlas, card: Card): HTMLElement {
  const rows = Object.entries(card.columns)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => {
      const column = atlas.site.columns.find((one) => one.name === name);
      const isPosition = (name === "ra" || name === "dec") && typeof value === "number";
      return h("tr", {}, h("th", { scope: "row", title: column?.description ?? "" }, name), h("td", {}, isPosition ? value.toFixed(6) : shownValue(value), column?.unit ? h("i", {}, column.unit) : null));
    });
  return h("section", { class: "part" }, h("h3", { class: "unseen" }, "Columns"), rows.length ? h("table", { class: "facts" }, h("tbody", {}, ...rows)) : h("p", { class: "hint" }, "No columns."));
}

/** Draw links to pages about a position; nothing is asked of them until somebody follows one. */
function elsewhere({ ra, dec }: Card): HTMLElement {
  if (typeof ra !== "number" || typeof dec !== "number" || !Number.isFinite(ra) || !Number.isFinite(dec)) return h("span", { class: "hidden" });
  const [r, d] = [ra.toFixed(6), dec.toFixed(6)];
  const place = `${r}%20${dec < 0 ? "" : "%2B"}${d}`;
  const pages = {
    "Legacy Survey": `https://www.legacysurvey.org/viewer?ra=${r}&dec=${d}&layer=ls-dr10&zoom=15&mark=${r},${d}`,
    SDSS: `https://skyserver.sdss.org/dr18/VisualTools/navi?ra=${r}&dec=${d}&scale=0.2`,
    SIMBAD: `https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=${place}&Radius=10&Radius.unit=arcsec`,
    NED: `https://ned.ipac.caltech.edu/conesearch?search_type=Near%20Position%20Search&coordinates=${r}d%20${dec < 0 ? "" : "%2B"}${d}d&radius=0.2&in_csys=Equatorial&in_equinox=J2000`,
    "Aladin Lite": `https://aladin.cds.unistra.fr/AladinLite/?target=${place}&fov=0.05&survey=CDS/P/DSS2/color`,
  };
  return h("section", { class: "part links", "aria-label": "Elsewhere" }, ...Object.entries(pages).map(([name, href]) => h("a", { href, target: "_blank", rel: "noopener noreferrer" }, name)));
}
