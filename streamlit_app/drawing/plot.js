// Draws one plot: layers of density as masks that take the theme's colors, hits as buttons, a rectangle to select with.
// Everything is placed in parts of the area (0 to 1, y from above), so that nothing is drawn anew when its size changes.
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".plot");
  root.classList.toggle("bare", !data.ticks);
  const area = root.querySelector(".area");
  const held = parentElement.activeElement?.dataset?.id;
  area.style.setProperty("--ratio", data.ratio);
  area.setAttribute("aria-label", data.label);
  area.replaceChildren(
    ...data.layers.map(layer), ...(data.lines ? [lines(data.lines)] : []),
    ...data.thumbs.map((thumb) => place(Object.assign(make("img", "thumb"), { src: thumb.src, alt: thumb.alt }), thumb)),
  );
  const brush = area.appendChild(make("div", "brush"));
  const tip = make("div", "tip");
  tip.hidden = true;
  area.append(...data.points.map((point) => button(point, data.selected, tip, setTriggerValue)), tip);
  if (held) [...area.querySelectorAll(".point")].find((point) => point.dataset.id === held)?.focus();
  axis(root.querySelector(".axis.x"), data.ticks?.x ?? [], "left");
  axis(root.querySelector(".axis.y"), data.ticks?.y ?? [], "top");
  root.querySelector(".name.x").textContent = data.names?.x ?? "";
  root.querySelector(".name.y").textContent = data.names?.y ?? "";
  select(area, brush, data.brush, (box) => setTriggerValue("brushed", box));
}

function layer({ src, kind }) {
  const node = make("div", `layer ${kind}`);
  node.style.maskImage = `url("${src}")`;
  return node;
}

function lines(paths) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const path = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  path.setAttribute("d", paths.map((one) => "M" + one.map((at) => at.join(" ")).join("L")).join(""));
  return svg;
}

function button(point, selected, tip, send) {
  const node = place(make("button", "point"), point);
  node.dataset.id = point.id;
  node.setAttribute("aria-label", point.label);
  node.setAttribute("aria-pressed", String(point.id === selected));
  node.onclick = () => send("picked", point.id);
  node.onpointerdown = (event) => event.stopPropagation();
  node.onkeydown = (event) => event.stopPropagation();
  node.onpointerenter = node.onfocus = () => {
    tip.replaceChildren(...(point.src ? [Object.assign(make("img"), { src: point.src, alt: "" })] : []), point.label);
    tip.style.cssText = point.x > 0.6 ? `right:${100 * (1 - point.x) + 2}%;` : `left:${100 * point.x + 2}%;`;
    tip.style.cssText += point.y > 0.55 ? `bottom:${100 * (1 - point.y)}%` : `top:${100 * point.y}%`;
    tip.hidden = false;
  };
  node.onpointerleave = node.onblur = () => { tip.hidden = true; };
  return node;
}

// A rectangle by dragging; by keys: arrows move it, with Shift they change its size, Enter takes it, Escape drops it.
function select(area, brush, given, send) {
  let box = given, from = null;
  const draw = () => {
    brush.hidden = !box;
    if (box) Object.assign(brush.style, {
      left: `${100 * box.x0}%`, top: `${100 * box.y0}%`,
      width: `${100 * (box.x1 - box.x0)}%`, height: `${100 * (box.y1 - box.y0)}%`,
    });
  };
  const at = (event) => {
    const frame = area.getBoundingClientRect();
    const part = (value, low, size) => Math.min(1, Math.max(0, (value - low) / size));
    return { x: part(event.clientX, frame.left, frame.width), y: part(event.clientY, frame.top, frame.height) };
  };
  const between = (one, other) => ({
    x0: Math.min(one.x, other.x), x1: Math.max(one.x, other.x), y0: Math.min(one.y, other.y), y1: Math.max(one.y, other.y),
  });
  area.onpointerdown = (event) => {
    if (event.button) return;
    from = at(event);
    area.setPointerCapture(event.pointerId);
  };
  area.onpointermove = (event) => { if (from) { box = between(from, at(event)); draw(); } };
  area.onpointerup = (event) => {
    if (!from) return;
    const to = at(event), large = Math.abs(to.x - from.x) > 0.01 && Math.abs(to.y - from.y) > 0.01;
    box = large ? between(from, to) : null;
    from = null;
    draw();
    if (large || given) send(box);
  };
  area.onpointercancel = () => { from = null; box = given; draw(); };
  area.onkeydown = (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) {
      box = box ? moved(box, step.map((part) => 0.04 * part), event.shiftKey) : { x0: 0.4, x1: 0.6, y0: 0.4, y1: 0.6 };
      draw();
    } else if (event.key === "Enter" && box) send(box);
    else if (event.key === "Escape" && box) { box = null; draw(); send(null); }
    else return;
    event.preventDefault();
  };
  draw();
}

function moved(box, [x, y], grows) {
  if (grows) return { ...box, x1: clip(box.x1 + x, box.x0 + 0.02, 1), y1: clip(box.y1 + y, box.y0 + 0.02, 1) };
  const right = clip(x, -box.x0, 1 - box.x1), down = clip(y, -box.y0, 1 - box.y1);
  return { x0: box.x0 + right, x1: box.x1 + right, y0: box.y0 + down, y1: box.y1 + down };
}

function axis(root, ticks, edge) {
  root.replaceChildren(...ticks.map(({ at, text }) => {
    const node = make("span", "", text);
    node.style[edge] = `${100 * at}%`;
    return node;
  }));
}

function place(node, { x, y }) {
  Object.assign(node.style, { left: `${100 * x}%`, top: `${100 * y}%` });
  return node;
}

function clip(value, low, high) { return Math.min(high, Math.max(low, value)); }

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  if (tag === "button") element.type = "button";
  return element;
}
