// The gallery and the table of hits.
import { alt, type Card, type Value } from "../cards.ts";
import type { Answer } from "../atlas.ts";
import type { Site } from "../manifest.ts";
import { h, short } from "./dom.ts";

export interface Actions {
  pick(card: Card): void;
  like(card: Card): void;
  note(card: Card): string; // what stands below a tile
  instead(card: Card): HTMLElement | null; // of a picture that is not there
}

/** Draw tiles; each fills when its card is there. */
export function gallery(answer: Answer, cards: Promise<Card>[], selected: string | null, actions: Actions): HTMLElement {
  const list = h("ul", { class: "grid", "aria-label": answer.scores ? "Results, best first" : "Galaxies" });
  cards.forEach((wait, n) => {
    if (answer.weak === n && n > 0) list.append(h("li", { class: "line" }, "Weaker matches below"));
    list.append(tile(wait, answer.scores?.[n] ?? null, selected, actions));
  });
  list.addEventListener("keydown", (event) => step(list, event));
  return list;
}

function tile(wait: Promise<Card>, score: number | null, selected: string | null, actions: Actions): HTMLElement {
  const place = h("li", { class: "place" }, h("span", { class: "tile empty", "aria-hidden": "true" }, h("span", { class: "picture" }), h("span", { class: "caption" }, " ")));
  wait.then(
    (card) => {
      const picture = card.picture
        ? h("img", { class: "picture", alt: alt(card), decoding: "async", src: card.picture, width: 160, height: 160 })
        : (actions.instead(card) ?? h("span", { class: "picture none" }, "no image"));
      const first = h("span", { class: "row" }, h("span", { class: "id", title: card.id }, card.id), score !== null && h("span", { class: "score" }, score.toFixed(3)));
      const more = actions.note(card);
      const button = h(
        "button",
        { class: "tile", data: { id: card.id }, "aria-pressed": String(card.id === selected), onclick: () => actions.pick(card) },
        picture,
        h("span", { class: "caption" }, first, more && h("span", { class: "row more" }, h("span", { class: "note" }, more))),
      );
      const like = h("button", { class: "like", "aria-label": `More like ${card.id}`, title: "More like this", onclick: () => actions.like(card) }, "more like this");
      place.replaceChildren(button, like);
    },
    () => place.replaceChildren(h("span", { class: "tile" }, h("span", { class: "picture none" }, "not read"), h("span", { class: "caption" }, " "))),
  );
  return place;
}

function step(list: HTMLElement, event: KeyboardEvent): void {
  const tiles = [...list.querySelectorAll<HTMLButtonElement>("button.tile")];
  const here = tiles.indexOf((event.target as HTMLElement).closest("button.tile") as HTMLButtonElement);
  if (here < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "m") {
    event.preventDefault();
    (tiles[here]!.nextElementSibling as HTMLButtonElement | null)?.click();
    return;
  }
  const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
  const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -here, End: tiles.length - 1 - here }[event.key];
  if (move === undefined || !tiles[here + move]) return;
  event.preventDefault();
  tiles[here + move]!.focus();
}

/** Draw a table of hits; a click on a heading sorts what is shown. */
export function table(site: Site, answer: Answer, cards: Card[], selected: string | null, actions: Actions, sort: { by: string | null; down: boolean }): HTMLElement {
  const shown = site.columns.filter((column) => column.shown && column.name !== "object_id" && cards.some((card) => (card.columns[column.name] ?? null) !== null));
  const order = cards.map((_, n) => n);
  const value = (n: number, name: string): Value => (name === "score" ? (answer.scores?.[n] ?? null) : name === "object_id" ? cards[n]!.id : (cards[n]!.columns[name] ?? null));
  const { by, down } = sort;
  if (by !== null) order.sort((a, b) => compare(value(a, by), value(b, by), down) || a - b);
  const body = h("tbody");
  const heads = h("tr");
  const box = h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Table of results" }, h("table", { class: "hits" }, h("thead", {}, heads), body));
  const names: [string, string | null][] = [["object_id", null], ...(answer.scores ? ([["score", null]] as [string, null][]) : []), ...shown.map((one): [string, string | null] => [one.name, one.unit])];
  for (const [name, unit] of names) {
    const about = site.columns.find((column) => column.name === name)?.description ?? (name === "score" ? "Cosine with the query" : "");
    const turn = () => {
      const next = { by: name, down: by === name ? !down : name !== "object_id" };
      Object.assign(sort, next);
      box.replaceWith(table(site, answer, cards, selected, actions, sort));
    };
    const arrow = by === name ? (down ? " ↓" : " ↑") : "";
    heads.append(h("th", { scope: "col", "aria-sort": by === name ? (down ? "descending" : "ascending") : "none" }, h("button", { title: about || name, onclick: turn }, name + arrow), unit && h("i", {}, unit)));
  }
  for (const n of order) {
    const card = cards[n]!;
    const thumb = card.picture ? h("img", { src: card.picture, alt: "", width: 32, height: 32 }) : h("span", { class: "blank" });
    const first = h("td", { class: "name" }, h("button", { class: "tile-link", data: { id: card.id }, "aria-pressed": String(card.id === selected), onclick: () => actions.pick(card) }, thumb, card.id));
    const rest = names.slice(1).map(([name]) => {
      const one = value(n, name);
      return h("td", { class: typeof one === "number" ? "number" : "" }, shownValue(one, name === "score"));
    });
    body.append(h("tr", {}, first, ...rest));
  }
  return box;
}

export function shownValue(value: Value, isScore = false): string {
  if (value === null) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number" ? (isScore ? value.toFixed(4) : short(value)) : value;
}

function compare(a: Value, b: Value, down: boolean): number {
  if (a === null || b === null) return Number(a === null) - Number(b === null); // what is missing comes last
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a) < String(b) ? -1 : Number(String(a) > String(b));
  return down ? -order : order;
}
