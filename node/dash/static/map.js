// Who kept what when, and what of others' it was built on: a lane for each node, an arc for each adoption.

import { el, svg, said, table, recordLink, moment, count } from "./dom.js";
import { scale, ticks, timeTicks, timeSpan, timeText } from "./scale.js";
import { tip, hideTip } from "./tip.js";

const TOP = 12, BOTTOM = 34, RIGHT = 20;

export function adoptionMap(data, byTime, width) {
  if (!data.dots.length) return el("p", { class: "quiet", text: "Nothing was kept on this track yet." });
  const narrow = width < 620;
  const lane = narrow ? 58 : data.lanes.length > 10 ? 32 : 54, left = narrow ? 12 : 150;
  const height = TOP + BOTTOM + lane * data.lanes.length;
  const at = ([, number, when]) => (byTime ? when : number);
  const values = data.dots.map(at);
  const [first, last] = byTime ? timeSpan(values) : [Math.min(...values) - 1, Math.max(...values) + 1];
  const x = scale(first, last, left + 14, width - RIGHT);
  const px = (dot) => Math.min(width - RIGHT, Math.max(left + 14, x(at(dot))));
  const py = (dot) => TOP + lane * (dot[0] + (narrow ? 0.65 : 0.5));

  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart map", role: "img", tabindex: 0 },
    svg("title", { text: `${count(data.dots.length, "kept result")} of ${count(data.lanes.length, "node")}, ${count(data.links.length, "adoption")}. The table below has the same.` }));
  const wanted = Math.max(2, Math.floor(width / 150));
  const along = byTime ? timeTicks(first, last, wanted) : [...new Set(ticks(first, last, wanted).map(Math.round))];
  for (const value of along) {
    root.append(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: TOP, y2: height - BOTTOM }),
      svg("text", { class: "tick", x: x(value), y: height - BOTTOM + 20, "text-anchor": "middle" }, byTime ? timeText(value, last - first) : value.toLocaleString("en")));
  }
  data.lanes.forEach((name, number) => {
    const y = py([number]);
    root.append(svg("line", { class: "lane", x1: left, x2: width - RIGHT, y1: y, y2: y }),
      svg("text", { class: number === data.own ? "name own" : "name", x: narrow ? left : 0, y: narrow ? y - 18 : y + 4 }, number === data.own ? `${name} (here)` : name));
  });
  const links = data.links.map(([from, to]) => ({ from, to, node: arc(data.dots[from], data.dots[to], px, py) }));
  root.append(...links.map((one) => one.node), ...data.dots.map((dot) => mark(px(dot), py(dot), dot[3])));
  listen(root, data, links, px, py, width, height);
  return root;
}

function arc(from, to, px, py) {
  const [x1, y1, x2, y2] = [px(from), py(from), px(to), py(to)];
  const bend = Math.max(4, Math.abs(x2 - x1) / 2);
  return svg("path", { class: "link", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` });
}

function mark(x, y, verdict) {
  if (verdict === "refuted") return svg("path", { class: "kept refuted", d: `M${x - 4} ${y - 4}l8 8M${x - 4} ${y + 4}l8 -8` });
  return svg("circle", { class: `kept ${verdict}`, cx: x, cy: y, r: 5 });
}

function listen(root, data, links, px, py, width, height) {
  const ring = svg("circle", { class: "ring", r: 9, visibility: "hidden" });
  root.append(ring);
  let chosen = null;
  const choose = (index) => {
    chosen = index;
    ring.setAttribute("visibility", index === null ? "hidden" : "visible");
    root.classList.toggle("points", index !== null);
    for (const one of links) one.node.classList.toggle("on", index !== null && (one.from === index || one.to === index));
    if (index === null) return hideTip();
    const dot = data.dots[index];
    ring.setAttribute("cx", px(dot));
    ring.setAttribute("cy", py(dot));
    const box = root.getBoundingClientRect();
    const adopters = links.filter((one) => one.from === index).map((one) => data.lanes[data.dots[one.to][0]]);
    const built = adopters.length ? [`built on by ${[...new Set(adopters)].join(", ")}`] : [];
    return tip(box.left + (px(dot) / width) * box.width, box.top + (py(dot) / height) * box.height,
      [`${dot[6]}   ${dot[3]}`, dot[5], `${data.lanes[dot[0]]}, ${moment(dot[2])}`, ...built]);
  };
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width, y = ((event.clientY - box.top) / box.height) * height;
    let best = null, least = 22 ** 2;
    data.dots.forEach((dot, index) => {
      const distance = (px(dot) - x) ** 2 + (py(dot) - y) ** 2;
      if (distance < least) [best, least] = [index, distance];
    });
    choose(best);
  });
  root.addEventListener("pointerleave", () => choose(null));
  root.addEventListener("blur", () => choose(null));
  root.addEventListener("click", () => { if (chosen !== null) location.hash = `#/record/${data.dots[chosen][4]}`; });
  root.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Enter" && chosen !== null) location.hash = `#/record/${data.dots[chosen][4]}`;
    if (!move) return;
    event.preventDefault();
    choose(Math.min(data.dots.length - 1, Math.max(0, chosen === null ? data.dots.length - 1 : chosen + move)));
  });
}

// The latest adoptions in words.
export function adoptionTable(data) {
  const shown = [...data.links].sort((a, b) => data.dots[b[1]][2] - data.dots[a[1]][2]).slice(0, 50);
  const rows = shown.map(([from, to]) => {
    const [source, result] = [data.dots[from], data.dots[to]];
    return { cells: [moment(result[2]), data.lanes[result[0]], recordLink(result[4]), data.lanes[source[0]], el("a", { href: `#/record/${source[4]}` }, said(source[5])), source[6]] };
  });
  if (!rows.length) return null;
  return table("Adoptions, the latest first", ["when", "who", "in", "built on", "result", "change"], rows, { numeric: [5], label: "cards" });
}
