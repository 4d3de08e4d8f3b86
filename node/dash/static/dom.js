// Builds the page. Whatever a record says enters as text and as nothing else.

const SVG = "http://www.w3.org/2000/svg";

// An element: `props` are attributes, but for `text`; children are elements, strings, or nothing.
export function el(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// Puts `children` in the place of what a node holds; whoever stands on a link stays on it.
export function replace(node, ...children) {
  const active = node.contains(document.activeElement) ? document.activeElement : null;
  const where = active && (active.getAttribute("href") || active.id);
  node.replaceChildren(...children.flat(Infinity).filter(Boolean));
  if (!where) return;
  const again = [...node.querySelectorAll("a, button, input, [tabindex]")];
  again.find((one) => one.getAttribute("href") === where || one.id === where)?.focus({ preventScroll: true });
}

// Words of somebody: kept apart from their surroundings, in whatever direction they are written.
export function said(text, props = {}) {
  return el("bdi", { ...props, text });
}

// A table whose cells are strings or elements; numeric columns are named in `numeric`.
export function table(caption, heads, rows, { numeric = [], label } = {}) {
  const kind = (index) => (numeric.includes(index) ? "n" : null);
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", { class: label },
      el("caption", { text: caption, class: "unseen" }),
      el("thead", {}, el("tr", {}, heads.map((head, index) => el("th", { scope: "col", class: kind(index), text: head })))),
      el("tbody", {}, rows.map((row) => el("tr", { class: row.kind },
        row.cells.map((cell, index) => el("td", { class: kind(index), "data-head": heads[index] }, cell)))))));
}

export function facts(pairs) {
  return el("dl", {}, pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", {}, value))));
}

export function recordLink(id, text) {
  return el("a", { href: `#/record/${id}`, class: "id", text: text ?? id.slice(0, 8) });
}

const MARKS = { confirmed: "●", claimed: "○", refuted: "×" };

// A state in words, with a sign for those who look from afar.
export function state(verdict, words) {
  return el("span", { class: `state ${verdict}` },
    el("span", { class: "mark", "aria-hidden": "true", text: MARKS[verdict] ?? "" }), " ", said(words));
}

export function score(value, digits = 4) {
  return value === null || value === undefined ? "" : value.toFixed(digits).replace("-", "−");
}

export function count(value, one, many = `${one}s`) {
  return `${value.toLocaleString("en")} ${value === 1 ? one : many}`;
}

const DAYS = 86400000;

// A moment on this machine's clock: `21:04` within a day, else `27 Nov 21:04`.
export function moment(when, full = false) {
  const date = new Date(when);
  if (Number.isNaN(date.getTime())) return "?";
  const clock = `${String(date.getHours()).padStart(2, "0")}:${String(date.getMinutes()).padStart(2, "0")}`;
  if (!full && Math.abs(Date.now() - when) < DAYS / 2) return clock;
  const day = `${date.getDate()} ${date.toLocaleString("en", { month: "short" })}`;
  const year = date.getFullYear() === new Date().getFullYear() ? "" : ` ${date.getFullYear()}`;
  return `${day}${year} ${clock}`;
}
