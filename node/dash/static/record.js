// One record in full.

import { el, svg, said, table, recordLink, state, score, moment, facts, count } from "./dom.js";
import { scale, ticks } from "./scale.js";

const OUTCOMES = {
  kept: "kept", discarded: "discarded", inconclusive: "inconclusive", crashed: "crashed", baseline: "the baseline",
};

export function record(data, width) {
  return data.kind === "result" ? result(data, width) : verification(data);
}

function result(data, width) {
  const aim = data.aim === "simpler" ? "kept because it is simpler" : "kept";
  return el("article", {},
    el("p", { class: "kicker" }, el("span", { class: "outcome", text: data.outcome === "kept" ? aim : OUTCOMES[data.outcome] }),
      data.state ? [" · ", state(data.verdict, data.state)] : null),
    el("h1", {}, said(data.title)),
    byline(data),
    figures(data),
    data.reason ? el("p", { class: "reason" }, said(data.reason)) : null,
    data.cause ? el("p", { class: "reason" }, el("span", { class: "quiet", text: "How it ended: " }), said(data.cause)) : null,
    evidence(data),
    section("The edit", diff(data.diff)),
    data.curves.length ? section("Training", curves(data.curves, width)) : null,
    lineage(data),
    data.reruns.length ? section("Re-runs by others", reruns(data)) : null,
    runs(data.runs),
    section("In the record", facts([
      ["id", el("code", { text: data.id })], ["author", el("code", { text: data.author })], ["place in its log", data.place],
      ["task", said(data.task)], ["machine", said(data.machine)], ["proposer", said(data.proposer)],
      ["techniques", data.tags.join(", ")], ["steps", stepsText(data)], ["cost", data.cost],
      ["program", el("code", { text: data.program })], ["parent", data.parent ? el("code", { text: data.parent }) : ""],
    ])),
    data.output.map((one) => section(`Output of ${one.name}`, el("pre", { text: one.text, tabindex: 0 }))));
}

function verification(data) {
  const about = data.about;
  return el("article", {},
    el("p", { class: "kicker" }, el("span", { class: "outcome", text: `re-run: ${data.outcome}${data.wider ? ", at twice the width" : ""}` })),
    el("h1", {}, about ? said(about.title) : `Result ${data.about_id.slice(0, 16)}`),
    byline(data),
    figures(data),
    data.cause ? el("p", { class: "reason" }, said(data.cause)) : null,
    section("What it is about", about ? list([about]) : el("p", {}, recordLink(data.about_id, data.about_id))),
    evidence(data),
    runs(data.runs),
    section("In the record", facts([
      ["id", el("code", { text: data.id })], ["author", el("code", { text: data.author })], ["place in its log", data.place],
      ["task", said(data.task)], ["machine", said(data.machine)], ["cost", data.cost],
    ])));
}

function section(title, ...content) {
  return el("section", {}, el("h2", { text: title }), content);
}

function byline(data) {
  return el("p", { class: "quiet" }, "by ", el("span", { class: data.own ? "own" : null, text: data.own ? `${data.name} (here)` : data.name }),
    `, ${moment(data.when, true)}, `, said(data.task));
}

function figures(data) {
  const figure = (label, value, more = "") => (value
    ? el("div", {}, el("dt", { text: label }), el("dd", {}, value, more ? el("small", { text: ` ${more}` }) : null)) : null);
  const noise = data.noise === null || data.noise === undefined ? "" : `σ ${score(data.noise)} over seeds`;
  const all = [figure("change", data.change, data.interval), figure("score", score(data.score)),
    data.outcome === "baseline" ? figure("noise", score(data.noise), "over seeds") : figure("parent", score(data.parent_score), noise)];
  return all.some(Boolean) ? el("dl", { class: "figures" }, all) : null;
}

function stepsText(data) {
  if (!data.steps) return "";
  const cost = data.cost_ratio === null ? "" : `; one step costs ${data.cost_ratio.toFixed(3)} of the baseline's`;
  return `${data.steps.toLocaleString("en")}${cost}`;
}

function evidence(data) {
  if (!data.evidence.length) return null;
  return section("Evidence", data.evidence.map((text) => el("p", { text })));
}

function diff(rows) {
  if (!rows.length) return el("p", { class: "quiet", text: "There is none." });
  const signs = { "-": ["−", ""], "+": ["", "+"], "~": ["−", "+"], " ": ["", ""] };
  const cell = (sign, number, text, kind) => [
    el("td", { class: `no ${kind}`, text: number === null ? "" : String(number) }),
    el("td", { class: `code ${kind}` }, el("span", { class: "sign", text: sign }), el("code", { text })),
  ];
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The edit, before on the left and after on the right" },
    el("table", { class: "diff" },
      el("colgroup", {}, ["no", "half", "no", "half"].map((name) => el("col", { class: name }))),
      el("thead", { class: "unseen" }, el("tr", {}, ["line", "before", "line", "after"].map((text) => el("th", { scope: "col", text })))),
      el("tbody", {}, rows.map(([kind, leftNumber, left, rightNumber, right]) => {
        if (kind === "@") return el("tr", { class: "gap" }, el("td", { colspan: 4 }, said(left)));
        const [old, fresh] = signs[kind];
        const same = kind === " ";
        return el("tr", { class: same ? "same" : "changed" },
          cell(old, leftNumber, left, same ? "left" : leftNumber === null ? "left none" : "left old"),
          cell(fresh, rightNumber, right, same ? "right" : rightNumber === null ? "right none" : "right new"));
      }))));
}

function list(records, total = records.length) {
  return el("ul", { class: "records" },
    records.map((one) => el("li", {}, recordLink(one.id), " ", el("span", { class: "who", text: one.name }), " ",
      el("span", { class: "mono", text: one.change }), " ", el("a", { href: `#/record/${one.id}` }, said(one.title)),
      one.state ? el("span", { class: "quiet" }, " ", said(one.state)) : null)),
    total > records.length ? el("li", { class: "quiet", text: `and ${total - records.length} more` }) : null);
}

function lineage(data) {
  const parts = [];
  if (data.built_on.length) parts.push(el("h3", { text: `Built on ${count(data.built_on_total, "kept result")}, the nearest first` }), list(data.built_on, data.built_on_total));
  if (data.inspired_by.length) parts.push(el("h3", { text: "Taken from, or shown" }), list(data.inspired_by));
  if (data.adopted_by.length) {
    parts.push(el("h3", { text: "Adopted by" }), el("ul", { class: "records" },
      data.adopted_by.map((one) => el("li", {}, el("span", { class: "who", text: one.name }), " ", el("span", { class: "quiet", text: moment(one.when, true) }))),
      data.adopted_by_total > data.adopted_by.length ? el("li", { class: "quiet", text: `and ${data.adopted_by_total - data.adopted_by.length} more` }) : null));
  }
  return parts.length ? section("Lineage", parts) : null;
}

function reruns(data) {
  const rows = data.reruns.map((one) => ({
    cells: [one.name, recordLink(one.id, one.outcome), said(one.where), one.change, one.interval, one.bets, moment(one.when, true)],
  }));
  return [table("Re-runs by others", ["by", "verdict", "where", "change", "95 % interval", "e-value", "when"], rows, { numeric: [3, 4], label: "figures-only" }),
    data.reruns_total > rows.length ? el("p", { class: "quiet", text: `The last ${rows.length} of ${data.reruns_total}.` }) : null];
}

function runs(all) {
  if (!all.length) return null;
  const rows = all.map(([arm, role, slice, seed, steps, value, seconds, digest]) => ({
    cells: [arm, role, said(slice), String(seed), String(steps), value === null ? "no score" : score(value), seconds.toFixed(1), el("code", { text: digest })],
  }));
  return section("Runs", table("Runs", ["arm", "role", "text", "seed", "steps", "score", "CPU s", "logits"], rows, { numeric: [3, 4, 5, 6], label: "figures-only" }));
}

const LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 28;

// Losses while the runs trained, as the program reported them: candidates drawn through, parents dashed.
function curves(all, width) {
  const height = Math.max(200, Math.min(300, width * 0.36));
  const points = all.flatMap((one) => one.points);
  const steps = Math.max(...points.map(([step]) => step));
  const losses = points.map(([, loss]) => loss).sort((a, b) => a - b);
  const low = losses[0], most = losses[Math.floor((losses.length - 1) * 0.98)];
  const high = Math.min(losses[losses.length - 1], low + 2 * (most - low));  // a spike does not flatten the rest
  const x = scale(0, steps, LEFT, width - RIGHT), y = scale(low, high, height - BOTTOM, TOP);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart", role: "img" },
    svg("title", { text: `Training loss of ${count(all.length, "run")} over ${steps} steps` }),
    ticks(low, high, 4).map((value) => [svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, score(value, 2))]),
    ticks(0, steps, Math.floor(width / 140)).map((value) => svg("text", { class: "tick", x: x(value), y: height - 8, "text-anchor": "middle" }, value.toLocaleString("en"))));
  for (const one of all) {
    const parent = one.name.startsWith("parent");
    root.append(svg("path", { class: parent ? "curve parent" : "curve",
      d: one.points.map(([step, loss], index) => `${index ? "L" : "M"}${x(step).toFixed(1)} ${Math.max(TOP, y(loss)).toFixed(1)}`).join("") }));
  }
  const names = all.map((one) => one.name).join(", ");
  return [root, el("p", { class: "quiet note", text: `Loss by step, as the program itself reported it: the candidate's runs drawn through, the parent's dashed (${names}). The score above comes from the evaluator.` })];
}
