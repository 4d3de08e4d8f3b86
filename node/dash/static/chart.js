// The staircase: every result of one track, and the best so far.

import { el, svg, score, count, moment } from "./dom.js";
import { scale, ticks, timeTicks, timeSpan, timeText } from "./scale.js";
import { tip, hideTip } from "./tip.js";

const LEFT = 58, RIGHT = 18, TOP = 20, BOTTOM = 34;
const CROWD = 400;  // kept results from which on those beside the stairs are small, and their re-runs are left out

export function staircase(data, byTime, width) {
  const height = Math.max(240, Math.min(400, width * 0.5));
  const kept = data.kept.map(([n, t, value, low, high, verdict, step, id, name, title, change]) => (
    { n, t, score: value, low, high, verdict, step: step === 1, id, name, title, change }));
  const others = data.others.map(([n, t, value, outcome, id]) => (
    { n, t, score: value, outcome: data.outcomes[outcome], id }));
  const reruns = data.reruns.map(([n, t, value, outcome, id, name]) => ({ n, t, score: value, outcome, id, name }));
  const at = (one) => (byTime ? one.t : one.n);
  if (!kept.length && !others.length) return el("p", { class: "quiet", text: "No experiment has a score yet." });

  const [bottom, top] = valueSpan(data, kept, others);
  const isIn = (one) => one.score >= bottom && one.score <= top;
  const steps = kept.filter((one) => one.step), isCrowd = kept.length > CROWD;
  const ids = new Set(steps.map((one) => one.id));
  const dots = others.filter(isIn);
  const marks = kept.filter((one) => one.step || (isIn(one) && !isCrowd));
  const small = isCrowd ? kept.filter((one) => !one.step && isIn(one)) : [];
  const again = reruns.filter((one) => isIn(one) && (!isCrowd || ids.has(one.id)));
  const all = [...small, ...dots, ...again, ...marks];
  const [first, last] = byTime ? timeSpan(all.map(at)) : [0.5, Math.max(data.last, 2) + 0.5];
  const x = scale(first, last, LEFT, width - RIGHT);
  const y = scale(bottom, top, height - BOTTOM, TOP);
  const inX = (one) => Math.min(width - RIGHT, Math.max(LEFT, x(at(one))));
  const inY = (value) => Math.min(height - BOTTOM, Math.max(TOP, y(value)));

  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart", role: "img" },
    svg("title", { text: describe(data, steps) }),
    axes(data, [first, last], [bottom, top], x, y, width, height, byTime));
  if (data.baseline !== null) {
    const level = inY(data.baseline);
    root.append(svg("line", { class: "base", x1: LEFT, x2: width - RIGHT, y1: level, y2: level }),
      svg("text", { class: "tick", x: width - RIGHT, y: level - 6, "text-anchor": "end" }, `baseline ${score(data.baseline)}`));
  }
  root.append(
    svg("path", { class: "dots", d: specks(dots, inX, inY) }),
    svg("path", { class: "dots some", d: specks(small, inX, inY) }),
    svg("path", { class: "stair", d: path(steps, data.baseline, inX, inY, width - RIGHT) }),
    svg("path", { class: "bars", d: steps.filter((one) => one.low !== null).map((one) => bar(inX(one), inY(one.low), inY(one.high))).join("") }),
    ...again.map((one) => rerunMark(inX(one), inY(one.score), one.outcome)),
    ...marks.map((one) => keptMark(inX(one), inY(one.score), one)));
  if (steps.length) {
    const best = steps[steps.length - 1];
    const right = inX(best) > width - 110, lower = data.direction === "lower";
    const end = inY((lower ? best.low : best.high) ?? best.score);  // past the end of its bar
    root.append(svg("text", { class: "best", x: right ? width - RIGHT : inX(best) + 8, y: lower ? Math.min(height - BOTTOM - 6, end + 16) : Math.max(TOP + 10, end - 8),
      "text-anchor": right ? "end" : "start" }, score(best.score)));
  }
  root.dataset.beyond = kept.length + others.length - dots.length - marks.length - small.length;
  const places = all.map((one) => ({ one, px: inX(one), py: inY(one.score) }));
  listen(root, places, places.filter(({ one }) => one.step), width, height);
  return root;
}

function specks(all, inX, inY) {
  return all.map((one) => `M${inX(one).toFixed(1)} ${inY(one.score).toFixed(1)}h0`).join("");
}

// From a little below the best to what most results reach; the rest is left out.
function valueSpan(data, kept, others) {
  const must = kept.filter((one) => one.step).flatMap((one) => [one.score, one.low ?? one.score, one.high ?? one.score]);
  if (data.baseline !== null) must.push(data.baseline);
  const rest = [...kept, ...others].map((one) => one.score).sort((a, b) => a - b);
  const part = (share) => rest[Math.min(rest.length - 1, Math.floor(rest.length * share))];
  const lower = data.direction === "lower";
  let low = Math.min(...must, lower && must.length ? Infinity : part(0.1));
  let high = Math.max(...must, !lower && must.length ? -Infinity : part(0.9));
  if (must.length) {  // what is far off on the bad side does not flatten the stairs
    const room = Math.max(...must) - Math.min(...must);
    if (room > 0) [low, high] = [Math.max(low, Math.min(...must) - room / 2), Math.min(high, Math.max(...must) + room / 2)];
  }
  const margin = (high - low || Math.abs(high) * 0.1 || 1) * 0.08;
  return [low - margin, high + margin];
}

function axes(data, [first, last], [bottom, top], x, y, width, height, byTime) {
  const group = svg("g");
  const values = ticks(bottom, top, 5);
  const digits = Math.max(1, Math.min(4, Math.ceil(-Math.log10((values[1] ?? 1) - values[0] || 1) + 1e-9)));
  for (const value of values) {
    group.append(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: LEFT - 10, y: y(value) + 4, "text-anchor": "end" }, score(value, digits)));
  }
  const wanted = byTime ? Math.max(2, Math.floor(width / 130)) : Math.max(3, Math.floor(width / 110));
  const along = byTime ? timeTicks(first, last, wanted)
    : [...new Set(ticks(Math.max(1, first), last, wanted).map((one) => Math.round(one)))];
  for (const at of along) {
    const text = byTime ? timeText(at, last - first) : at.toLocaleString("en");
    group.append(svg("text", { class: "tick", x: x(at), y: height - BOTTOM + 20, "text-anchor": "middle" }, text));
  }
  group.append(svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM }),
    svg("text", { class: "tick", x: LEFT - 10, y: 10, "text-anchor": "end" }, data.metric));
  return group;
}

function path(steps, baseline, inX, inY, end) {
  if (!steps.length) return "";
  const start = baseline === null ? inY(steps[0].score) : inY(baseline);
  return `M${LEFT} ${start}${steps.map((one) => `H${inX(one)}V${inY(one.score)}`).join("")}H${end}`;
}

function bar(x, low, high) {
  return `M${x} ${low}V${high}M${x - 3} ${low}h6M${x - 3} ${high}h6`;
}

function keptMark(x, y, one) {
  const size = one.step ? 5 : 3.5;
  if (one.verdict === "refuted") {
    return svg("path", { class: "kept refuted", d: `M${x - 4} ${y - 4}l8 8M${x - 4} ${y + 4}l8 -8` });
  }
  return svg("circle", { class: `kept ${one.verdict}${one.step ? " step" : ""}`, cx: x, cy: y, r: size });
}

function rerunMark(x, y, outcome) {
  const dash = outcome === "refuted" || outcome === "fabricated" ? `M${x - 2} ${y - 2}l4 4M${x - 2} ${y + 2}l4 -4` : "";
  return svg("path", { class: `rerun ${outcome}`, d: `M${x} ${y - 5}l5 5l-5 5l-5 -5z${dash}` });
}

function describe(data, steps) {
  const best = steps.length ? `, the best so far ${score(steps[steps.length - 1].score)} ${data.metric}` : "";
  return `${data.name}: ${count(data.results, "experiment")}${best}. The table below has the same.`;
}

// The nearest mark under the pointer tells what it is; arrows walk along the steps, Enter opens one.
function listen(root, places, steps, width, height) {
  root.setAttribute("tabindex", "0");
  const ring = svg("circle", { class: "ring", r: 9, visibility: "hidden" });
  root.append(ring);
  let chosen = null;
  const choose = (place) => {
    chosen = place;
    ring.setAttribute("visibility", place ? "visible" : "hidden");
    if (!place) return hideTip();
    ring.setAttribute("cx", place.px);
    ring.setAttribute("cy", place.py);
    const box = root.getBoundingClientRect();
    return tip(box.left + (place.px / width) * box.width, box.top + (place.py / height) * box.height, lines(place.one));
  };
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * width, py = ((event.clientY - box.top) / box.height) * height;
    let best = null, least = 24 ** 2;
    for (const place of places) {
      const distance = (place.px - px) ** 2 + (place.py - py) ** 2;
      if (distance < least) [best, least] = [place, distance];
    }
    root.classList.toggle("points", best !== null);
    choose(best);
  });
  root.addEventListener("pointerleave", () => choose(null));
  root.addEventListener("blur", () => choose(null));
  root.addEventListener("click", () => { if (chosen) location.hash = `#/record/${chosen.one.id}`; });
  root.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Enter" && chosen) location.hash = `#/record/${chosen.one.id}`;
    if (!move || !steps.length) return;
    event.preventDefault();
    const index = steps.indexOf(chosen);
    choose(steps[Math.min(steps.length - 1, Math.max(0, index < 0 ? steps.length - 1 : index + move))]);
  });
}

function lines(one) {
  const value = score(one.score);
  if (one.title) return [`${value}   ${one.change}   ${one.verdict}`, one.title, `${one.name}, ${moment(one.t)}`];
  if (one.verdict) return [`${value}   kept, ${one.verdict}`, one.name, moment(one.t)];
  if (one.name) return [`${value}   ${one.outcome}`, `a re-run by ${one.name}`, moment(one.t)];
  return [`${value}   ${one.outcome}`, `experiment ${one.n.toLocaleString("en")}`, moment(one.t)];
}

export function legend() {
  const sign = (label, ...shapes) => el("li", {}, svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, class: "chart", "aria-hidden": "true" }, shapes), ` ${label}`);
  return el("ul", { class: "legend" },
    sign("confirmed", keptMark(8, 8, { verdict: "confirmed", step: true })),
    sign("claimed", keptMark(8, 8, { verdict: "claimed", step: true })),
    sign("refuted", keptMark(8, 8, { verdict: "refuted" })),
    sign("95 % interval", svg("path", { class: "bars", d: bar(8, 2, 14) })),
    sign("what a re-run found", rerunMark(8, 8, "confirmed")),
    sign("not kept", svg("path", { class: "dots", d: "M8 8h0" })));
}
