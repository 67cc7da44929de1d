// Draws tiles {id, score, rank, copies, why, mark, alt, src} and reports what was done with one.
// Everything goes in as text, never as markup: ids come from data.
const MARKS = { y: "true", n: "false", u: "uncertain", t: "true", f: "false" };
const SIGNS = { true: "✓", false: "✗", uncertain: "?" };
const NAMES = { true: "yes", false: "no", uncertain: "unsure" };

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".grid");
  const active = root.getRootNode().activeElement ?? document.activeElement;
  const held = active && { id: active.dataset?.id, kind: active.className.split(" ")[0] };
  const items = data.tiles.map((tile) => item(tile, data, setTriggerValue));
  if (data.line !== null && data.line < items.length) items.splice(data.line, 0, line());
  root.replaceChildren(...items);
  root.setAttribute("aria-label", data.label);
  root.classList.toggle("choosing", data.chosen.length > 0);
  root.waiting = stillWaiting(root.waiting, data.tiles);
  root.onkeydown = (event) => key(root, data, event, setTriggerValue);
  if (held?.id) [...root.querySelectorAll(`.${held.kind}`)].find((one) => one.dataset.id === held.id)?.focus();
}

// Marks that were given with keys and are not drawn yet. All of them are sent each time, since of two that come quickly
// the app may see the last one only.
function stillWaiting(waiting, tiles) {
  const drawn = new Map(tiles.map((tile) => [tile.id, tile.mark ?? null]));
  return new Map([...(waiting ?? [])].filter(([id, mark]) => drawn.has(id) && drawn.get(id) !== mark));
}

function item(tile, data, send) {
  const button = make("button", "tile");
  button.dataset.id = tile.id;
  button.setAttribute("aria-pressed", String(tile.id === data.selected));
  button.append(picture(tile), caption(tile));
  button.onclick = () => send("picked", tile.id);
  const place = make("li");
  place.append(button);
  if (data.offers.includes("alike")) place.append(like(tile, send));
  if (data.offers.includes("chosen")) place.append(choose(tile, data, send));
  if (tile.mark) place.append(sign(tile));
  return place;
}

function like(tile, send) {
  const button = make("button", "like", "more like this");
  button.setAttribute("aria-label", `More like ${tile.id}`);
  button.dataset.id = tile.id;
  button.onclick = () => send("alike", tile.id);
  return button;
}

function choose(tile, data, send) {
  const box = make("input", "choose");
  Object.assign(box, { type: "checkbox", checked: data.chosen.includes(tile.id) });
  box.dataset.id = tile.id;
  box.setAttribute("aria-label", `Choose ${tile.id}`);
  box.onchange = () => send("chosen", tile.id);
  return box;
}

function sign(tile) {
  const badge = make("span", `mark ${tile.mark}`, SIGNS[tile.mark]);
  badge.setAttribute("role", "img");
  badge.setAttribute("aria-label", `marked ${NAMES[tile.mark]}`);
  return badge;
}

function line() {
  return make("li", "line", "Weaker matches below");
}

function picture(tile) {
  if (!tile.src) return make("span", "picture none", "no image");
  const image = make("img", "picture");
  Object.assign(image, { src: tile.src, alt: tile.alt, decoding: "async" });
  return image;
}

function caption(tile) {
  const box = make("span", "caption");
  const first = make("span", "row");
  first.append(make("span", "id", tile.id));
  if (tile.score) first.append(make("span", "score", tile.score));
  box.append(first);
  if (tile.rank || tile.copies || tile.note) {
    const second = make("span", "row more");
    second.append(make("span", "note", tile.note ?? tile.copies ?? ""), make("span", "rank", tile.rank ?? ""));
    box.append(second);
  }
  if (tile.why) {
    const why = make("span", "why more", tile.why);
    why.title = `in common with the query: ${tile.why}`;
    box.append(why);
  }
  return box;
}

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  if (tag === "button") element.type = "button";
  return element;
}

// Arrow keys walk the grid as they do in a file browser; letters act on the tile that has the focus.
function key(root, data, event, send) {
  const tiles = [...root.querySelectorAll(".tile")];
  const here = tiles.indexOf(event.target.closest(".tile"));
  if (here < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const id = tiles[here].dataset.id;
  const letter = event.key.toLowerCase();
  if (letter in MARKS && data.offers.includes("marked")) {
    const drawn = data.tiles.find((tile) => tile.id === id).mark ?? null;
    const held = root.waiting.has(id) ? root.waiting.get(id) : drawn;
    root.waiting.set(id, held === MARKS[letter] ? null : MARKS[letter]);
    send("marked", [...root.waiting].map(([id, mark]) => ({ id, mark })));
    if (tiles[here + 1]) tiles[here + 1].focus();
  } else if (letter === "x" && data.offers.includes("chosen")) send("chosen", id);
  else if (letter === "m" && data.offers.includes("alike")) send("alike", id);
  else return step(root, tiles, here, event);
  event.preventDefault();
}

function step(root, tiles, here, event) {
  const columns = getComputedStyle(root).gridTemplateColumns.split(" ").length;
  const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (!move || !tiles[here + move]) return;
  event.preventDefault();
  tiles[here + move].focus();
}
