// Shows a report that somebody's watch wrote: without scripts, forms, windows of its own, and anything from elsewhere.
// The sandbox also keeps it from leading this page away or refreshing itself to another address.
const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".report");
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "");
  frame.setAttribute("referrerpolicy", "no-referrer");
  frame.title = data.title;
  frame.srcdoc = `<!doctype html><meta http-equiv="Content-Security-Policy" content="${POLICY}">${data.html}`;
  frame.style.cssText = `width: 100%; height: ${data.height}px; border: 1px solid #8888; border-radius: 0.375rem`;
  root.replaceChildren(frame);
}
