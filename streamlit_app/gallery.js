// Draws tiles {id, score, alt, src} and reports which one was picked, or asked for more like it.
// Everything goes in as text, never as markup: ids come from data.
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".grid");
  const held = parentElement.activeElement?.dataset?.id;
  root.replaceChildren(...data.tiles.map((tile) => item(tile, data.selected, setTriggerValue)));
  root.setAttribute("aria-label", data.label);
  root.onkeydown = (event) => step(root, event);
  if (held) [...root.querySelectorAll(".tile")].find((tile) => tile.dataset.id === held)?.focus();
}

function item(tile, selected, send) {
  const button = make("button", "tile");
  button.dataset.id = tile.id;
  button.setAttribute("aria-pressed", String(tile.id === selected));
  button.append(picture(tile), caption(tile));
  button.onclick = () => send("picked", tile.id);
  const like = make("button", "like", "more like this");
  like.setAttribute("aria-label", `More like ${tile.id}`);
  like.onclick = () => send("alike", tile.id);
  const place = make("li");
  place.append(button, like);
  return place;
}

function picture(tile) {
  if (!tile.src) return make("span", "picture none", "no picture");
  const image = make("img", "picture");
  Object.assign(image, { src: tile.src, alt: tile.alt, decoding: "async" });
  return image;
}

function caption(tile) {
  const line = make("span", "caption");
  line.append(make("span", "id", tile.id));
  if (tile.score) line.append(make("span", "score", tile.score));
  return line;
}

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  if (tag === "button") element.type = "button";
  return element;
}

// Arrow keys walk the grid as they do in a file browser.
function step(root, event) {
  const tiles = [...root.querySelectorAll(".tile")];
  const here = tiles.indexOf(event.target.closest(".tile"));
  const columns = getComputedStyle(root).gridTemplateColumns.split(" ").length;
  const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (here < 0 || !move || !tiles[here + move]) return;
  event.preventDefault();
  tiles[here + move].focus();
}
