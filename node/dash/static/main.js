// Shows a view, and keeps it up to date: only new records travel.

import { el, replace, score, count } from "./dom.js";
import { staircase, legend } from "./chart.js";
import { adoptionMap, adoptionTable } from "./map.js";
import { board, feedItem, isWin, peers } from "./lists.js";
import { record } from "./record.js";
import { hideTip } from "./tip.js";

const POLL = 1500, HURRY = 300, HIDDEN = 30000;  // ms
const REFRESH = 3000;  // of views that are made of many records
const SHORT = 40, LONG = 600, PAGE = 200;  // records beside the chart, in all, and those that come at a time

const swarm = { row: null, ready: false, tracks: [], records: [], first: 1, most: LONG, node: {} };
const shown = { view: "", argument: "", data: null, at: 0, row: -1, text: "" };
const wishes = { byTime: false, mapByOrder: false, wins: false, track: "" };
const main = () => document.getElementById("content");

class Refused extends Error {}

async function get(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  if (answer.status === 403) throw new Refused(await answer.text());
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(value.error), { why: value.why, isAnswer: true });
  return value;
}

// ---- what there is to show

function route() {
  const [view, argument] = location.hash.replace(/^#\/?/, "").split("/");
  return { view: ["map", "feed", "peers", "record"].includes(view) ? view : "progress", argument: argument ?? "" };
}

function track() {
  return swarm.tracks.find((one) => one.key === wishes.track) ?? swarm.tracks[0];
}

function width() {
  return Math.max(280, Math.floor(main().clientWidth));
}

async function load(view, argument) {
  if (view === "feed") return {};
  if (view === "record") return get(`api/records/${encodeURIComponent(argument)}`);
  if (view === "peers") return get("api/nodes");
  swarm.tracks = await get("api/tracks");
  const of = track();
  if (!of) return {};
  if (view === "map") return { map: await get(`api/tracks/${of.key}/map`) };
  const [progress, ranks] = await Promise.all([get(`api/tracks/${of.key}/progress`), get(`api/tracks/${of.key}/board`)]);
  return { progress, ranks };
}

async function show(isNew) {
  const { view, argument } = route();
  hideTip();
  if (isNew) {
    Object.assign(shown, { view, argument, data: null, text: "" });
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.view === view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    replace(main(), el("p", { class: "loading", text: swarm.ready ? "loading …" : "reading the ledger …" }));
    if (view === "feed" || view === "progress") draw();
  }
  if (!swarm.ready) return;
  shown.at = Date.now();
  shown.row = swarm.row;
  try {
    const data = await load(view, argument);
    if (view !== shown.view || argument !== shown.argument) return;  // another view was chosen meanwhile
    const text = JSON.stringify([data, swarm.tracks]);
    if (text === shown.text) return;
    Object.assign(shown, { data, text });
    draw();
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  if (error instanceof Refused) replace(main(), el("p", { class: "loading", text: error.message }));
  else if (error.isAnswer) replace(main(), el("h1", { text: error.message }), el("p", { class: "quiet", text: error.why }));
  else document.getElementById("node").textContent = "the dashboard does not answer: was it stopped?";
}

// ---- drawing

const VIEWS = { progress: drawProgress, map: drawMap, feed: drawFeed, peers: drawPeers, record: drawRecord };

function draw() {
  drawTracks();
  VIEWS[shown.view]();
  document.title = `${titleText()} · swarm-node`;
}

function titleText() {
  const { view, data } = shown;
  if (view === "record" && data) return data.title ?? `re-run: ${data.outcome}`;
  if (view === "progress" && data?.progress?.best) return `${score(data.progress.best)} ${data.progress.metric}`;
  return view;
}

function drawTracks() {
  const bar = document.getElementById("tracks");
  const wanted = ["progress", "map"].includes(shown.view) && swarm.tracks.length > 1;
  replace(bar, !wanted ? null : el("div", { class: "tabs", role: "group", "aria-label": "Tracks: scores are compared only within one" },
    swarm.tracks.map((one) => {
      const button = el("button", { type: "button", id: `track-${one.key}`, "aria-pressed": String(one === track()) }, el("bdi", { text: one.name }), el("small", { text: ` ${one.results.toLocaleString("en")}` }));
      button.addEventListener("click", () => { wishes.track = one.key; show(true); });
      return button;
    })));
}

function switcher(labels, chosen, id, choose) {
  return el("div", { class: "switch", role: "group", "aria-label": "Along the axis" }, labels.map((label, index) => {
    const button = el("button", { type: "button", id: `${id}-${index}`, "aria-pressed": String(index === chosen), text: label });
    button.addEventListener("click", () => { choose(index); draw(); });
    return button;
  }));
}

function drawProgress() {
  const feed = el("aside", { "aria-labelledby": "feed-head" },
    el("h2", { id: "feed-head" }, el("a", { href: "#/feed", text: "Feed" })), el("ol", { id: "feed", class: "feed", tabindex: 0 }, feedItems(SHORT)));
  if (!shown.data) {
    replace(main(), el("div", { class: "split" }, el("p", { class: "loading", id: "loading", text: swarm.ready ? "loading …" : loadingText() }), feed));
    return;
  }
  const { progress, ranks } = shown.data;
  if (!progress) {
    replace(main(), el("p", { class: "loading", text: "No results yet. The first one is the baseline of this machine." }), feed);
    return;
  }
  const top = main().querySelector("#feed")?.scrollTop ?? 0;
  const holder = el("div", { class: "holder" });
  replace(main(),
    hero(progress),
    el("div", { class: "split" },
      el("section", { "aria-labelledby": "progress-head" },
        el("div", { class: "head" }, el("h2", { id: "progress-head", text: "Progress" }),
          switcher(["by experiment", "by time"], wishes.byTime ? 1 : 0, "axis", (index) => { wishes.byTime = index === 1; })),
        holder, legend(), sample(progress)),
      feed),
    el("section", { "aria-labelledby": "board-head" }, el("h2", { id: "board-head", text: "Board" }), board(ranks, progress.metric)));
  const chart = staircase(progress, wishes.byTime, Math.max(260, holder.clientWidth));
  holder.append(chart);
  if (Number(chart.dataset.beyond)) holder.append(el("p", { class: "quiet note", text: `${count(Number(chart.dataset.beyond), "result")} far off on the worse side ${chart.dataset.beyond === "1" ? "is" : "are"} not drawn.` }));
  main().querySelector("#feed").scrollTop = top;
}

function hero(data) {
  const noise = data.noise === null ? "" : ` ± ${score(data.noise)}`;
  const since = data.baseline === null ? "" : ` since the baseline of ${score(data.baseline)}${noise}`;
  const number = data.best ?? data.baseline;
  return el("section", { class: "hero" },
    el("h1", {}, el("span", { class: "huge", text: number === null ? "–" : score(number) }), el("span", { class: "unit", text: ` ${data.metric}` })),
    el("p", {}, data.best === null ? "nothing was kept yet" : [el("a", { href: `#/record/${data.best_id}`, text: "best so far" }), ", ", el("bdi", { text: data.best_state }), data.change ? [", ", el("strong", { class: "mono", text: data.change }), since] : null]),
    el("p", { class: "quiet" }, el("bdi", { text: data.name }), `: ${count(data.results, "experiment")} by ${count(data.nodes, "node")}, ${data.kept_total.toLocaleString("en")} kept, ${count(data.reruns_total, "re-run")}; ${data.direction} is better`));
}

function sample(data) {
  if (data.others.length >= data.others_total) return null;
  return el("p", { class: "quiet note", text: `Of ${data.others_total.toLocaleString("en")} that were not kept, ${data.others.length.toLocaleString("en")} are drawn.` });
}

function drawMap() {
  if (!shown.data) return;
  if (!shown.data.map) return replace(main(), el("p", { class: "loading", text: "No results yet." }));
  const { map } = shown.data;
  const holder = el("div", { class: "holder" });
  const adoptions = adoptionTable(map);
  replace(main(),
    el("section", { "aria-labelledby": "map-head" },
      el("div", { class: "head" }, el("h2", { id: "map-head", text: "Who built on what" }),
        switcher(["by time", "by experiment"], wishes.mapByOrder ? 1 : 0, "map-axis", (index) => { wishes.mapByOrder = index === 1; })),
      el("p", { class: "quiet", text: "A lane for each node, a dot for each result that it kept, a line to each result that another node built on it after its own re-run." }),
      holder,
      map.dots.length < map.total ? el("p", { class: "quiet note", text: `Of ${count(map.total, "kept result")}, the newest ${map.dots.length} of the nodes that kept most.` }) : null),
    adoptions ? el("section", { "aria-labelledby": "adopted-head" }, el("h2", { id: "adopted-head", text: "Adoptions" }), adoptions) : null);
  holder.append(adoptionMap(map, !wishes.mapByOrder, Math.max(260, holder.clientWidth)));
}

function drawPeers() {
  if (shown.data) replace(main(), peers(shown.data));
}

function drawRecord() {
  if (shown.data) replace(main(), record(shown.data, width()));
}

// ---- the feed

function feedItems(most) {
  return swarm.records.filter((item) => !wishes.wins || isWin(item)).slice(-most).reverse().map(feedItem);
}

function drawFeed() {
  const wins = el("input", { type: "checkbox", id: "wins" });
  wins.checked = wishes.wins;
  wins.addEventListener("change", () => { wishes.wins = wins.checked; drawFeed(); });
  const older = el("button", { type: "button", id: "older", hidden: swarm.first <= 1, text: "older" });
  older.addEventListener("click", loadOlder);
  replace(main(),
    el("section", { "aria-labelledby": "feed-head" },
      el("div", { class: "head" }, el("h2", { id: "feed-head", text: "Feed" }), el("label", {}, wins, " only kept results and re-runs")),
      el("ol", { id: "feed", class: "feed wide" }, feedItems(Infinity)), older));
}

async function loadOlder() {
  try {
    const page = await get(`api/news?before=${swarm.first}`);
    swarm.records.unshift(...page.records);
    swarm.most += PAGE;
    swarm.first = page.first;
    if (shown.view === "feed") drawFeed();
  } catch (error) {
    fail(error);
  }
}

// New records come in at the top; a verdict changes the line of what it is about.
function receive(records) {
  const feed = document.getElementById("feed");
  const most = shown.view === "feed" ? swarm.most : SHORT;
  for (const item of records) {
    swarm.records.push(item);
    if (item.kind === "verification") {
      const subject = swarm.records.find((one) => one.id === item.about.id);
      if (subject) {
        Object.assign(subject, { state: item.about.state, verdict: item.about.verdict });
        feed?.querySelector(`[data-id="${subject.id}"]`)?.replaceWith(feedItem(subject));
      }
    }
    if (feed && (!wishes.wins || isWin(item))) {
      const node = feedItem(item);
      node.classList.add("new");
      feed.prepend(node);
      while (feed.children.length > most) feed.lastElementChild.remove();
    }
  }
  if (shown.view !== "feed") swarm.most = LONG;
  if (swarm.records.length > swarm.most) {
    swarm.records.splice(0, swarm.records.length - swarm.most);
    swarm.first = swarm.records[0].row;
  }
}

// ---- keeping up

function loadingText() {
  const share = swarm.total ? Math.floor((100 * swarm.read) / swarm.total) : 0;
  return swarm.total ? `reading the ledger … ${share} % of ${count(swarm.total, "record")}` : "reading the ledger …";
}

function drawNode() {
  const { node } = swarm;
  const peers = Array.isArray(node.peers) ? node.peers.length : 0;
  const text = node.running ? `${node.name} · ${node.role} · ${count(peers, "peer")}` : "no node runs here now";
  const line = document.getElementById("node");
  if (line.textContent !== text) line.textContent = text;
  line.classList.toggle("running", Boolean(node.running));
}

let timer = 0, isPolling = false;

async function poll() {
  if (isPolling) return;  // a page that comes to the front asks at once
  isPolling = true;
  clearTimeout(timer);
  let wait = document.hidden ? HIDDEN : POLL;
  try {
    const isStart = swarm.row === null;
    const news = await get(isStart ? "api/news" : `api/news?after=${swarm.row}`);
    const isReady = news.ready && !swarm.ready;
    Object.assign(swarm, { node: news.node, read: news.read, total: news.total, ready: news.ready });
    drawNode();
    if (isStart || isReady || news.skipped) {
      const fresh = isStart ? news : await get("api/news");  // states are known only now
      Object.assign(swarm, { records: fresh.records, first: fresh.first, row: fresh.row });
      if (isStart || isReady) await show(true);
      else draw();
    } else {
      swarm.row = news.row;
      if (news.records.length) receive(news.records);
    }
    if (!swarm.ready) {
      wait = HURRY;
      const line = document.getElementById("loading");
      if (line) line.textContent = loadingText();
    } else if (shown.view !== "feed" && (shown.row !== swarm.row || shown.view === "peers") && Date.now() - shown.at > REFRESH) {
      await show(false);
    }
  } catch (error) {
    fail(error);
  }
  isPolling = false;
  timer = setTimeout(poll, wait);
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();  // its address would be that of a view
  main().focus();
});
window.addEventListener("hashchange", () => { show(true); main().focus({ preventScroll: true }); window.scrollTo(0, 0); });
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) poll();
});
let drawn = 0;
window.addEventListener("resize", () => {
  if (shown.data && width() !== drawn) {
    drawn = width();
    draw();
  }
});

show(true);
poll();
