// The board, the feed, and the nodes.

import { el, said, table, recordLink, state, score, count, moment, facts } from "./dom.js";

const VERDICTS = {
  kept: "KEEP", discarded: "discard", inconclusive: "unclear", crashed: "crash", baseline: "baseline",
};

export function board(data, metric) {
  const rows = data.rows.map((row) => ({
    kind: row.verdict === "refuted" ? "fallen" : null,
    cells: [
      String(row.rank), score(row.score), row.error === null ? row.change : `${row.change} ±${row.error.toFixed(4)}`,
      row.interval, el("a", { href: `#/record/${row.id}` }, said(row.title)), row.name, state(row.verdict, row.state),
      row.adopted ? el("span", { title: row.adopters.join(", ") }, String(row.adopted)) : "",
    ],
  }));
  if (!rows.length) return el("p", { class: "quiet", text: "Nothing was kept yet." });
  const more = data.total > rows.length ? `The best ${rows.length} of ${count(data.total, "program")}. ` : "";
  const hidden = data.hidden ? `Left out: ${count(data.hidden, "result")} of quarantined nodes.` : "";
  return el("div", {},
    table("Board", ["#", metric, "change", "95 % interval", "result", "by", "state", "adopters"], rows, { numeric: [0, 1, 2, 3, 7], label: "board cards" }),
    more + hidden ? el("p", { class: "quiet note", text: more + hidden }) : null);
}

// What a record did, in a word or two.
function verdict(item) {
  if (item.kind === "verification") return item.outcome;
  if (item.outcome === "kept" && item.aim === "simpler") return "SIMPLER";
  return VERDICTS[item.outcome] ?? item.outcome;
}

// One record as an item of the feed.
export function feedItem(item) {
  const isRerun = item.kind === "verification";
  const about = isRerun ? item.about : null;
  const title = isRerun ? about.title || `result ${about.id.slice(0, 8)}` : item.title;
  const kind = `${item.kind} ${item.outcome}`;
  const tail = [];
  if (item.state) tail.push(state(item.verdict, item.state));
  if (isRerun && about.name) tail.push(el("span", { text: `of ${about.name}${item.wider ? ", at twice the width" : ""}` }));
  if (item.outcome === "crashed" && item.cause) tail.push(said(item.cause));
  return el("li", { class: kind, "data-id": item.id },
    el("div", { class: "line" },
      el("time", { datetime: stamp(item.when), text: moment(item.when) }),
      el("span", { class: item.own ? "who own" : "who", text: item.name }),
      el("span", { class: "where", text: `${item.track} on ${item.hardware}` }),
      el("span", { class: "what", text: `${verdict(item)} ${item.change}`.trim() })),
    el("a", { href: `#/record/${item.id}`, class: "title" }, said(title)),
    tail.length ? el("div", { class: "tail" }, tail.flatMap((one, index) => (index ? [" · ", one] : [one]))) : null);
}

function stamp(when) {
  const date = new Date(when);
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

export function isWin(item) {
  return item.kind === "verification" || item.outcome === "kept";
}

export function peers(data) {
  const node = data.node;
  const connected = Array.isArray(node.peers) ? node.peers : [];
  const crashes = Object.entries(node.crashes ?? {}).filter(([, number]) => number);
  const here = node.running
    ? facts([
      ["node", el("span", { class: "own", text: String(node.name) })], ["role", String(node.role)], ["task", said(String(node.task))],
      ["connected to", connected.length ? connected.join(", ") : "nobody now"],
      ["experiments finished", String(node.finished)], ["claims re-run", String(node.verified)],
      ["already tried by others, so skipped", String(node.avoided)],
      ["restarts of parts", crashes.map(([name, number]) => `${name} ${number}`).join(", ")],
      ["invite others", node.invite ? el("code", { class: "invite", text: `swarm-node join ${node.invite}` })
        : node.private ? el("code", { text: "swarm-node invite" }) : ""],
    ])
    : el("p", { class: "quiet", text: "No node runs in this home now. What it learned is below." });
  const rows = data.nodes.map((one) => ({
    kind: one.quarantined ? "fallen" : null,
    cells: [
      el("span", { class: one.own ? "own" : null, title: one.author, text: one.own ? `${one.name} (here)` : one.name }),
      said(one.hardware), connected.includes(one.name) ? "connected" : "", String(one.results), String(one.kept),
      String(one.confirmed), String(one.refuted), String(one.reruns),
      one.quarantined ? state("refuted", "quarantined") : "", moment(one.when),
    ],
  }));
  const heads = ["node", "hardware", "now", "results", "kept", "confirmed", "refuted", "re-runs", "standing", "last heard of"];
  const more = data.total > rows.length ? `The ${rows.length} most active of ${count(data.total, "node")}.` : "";
  return [
    el("section", {}, el("h2", { text: "The node of this home" }), here),
    el("section", {}, el("h2", { text: "Nodes in the ledger" }),
      rows.length ? table("Nodes in the ledger", heads, rows, { numeric: [3, 4, 5, 6, 7], label: "cards" }) : el("p", { class: "quiet", text: "None yet." }),
      more ? el("p", { class: "quiet note", text: more }) : null),
  ];
}
