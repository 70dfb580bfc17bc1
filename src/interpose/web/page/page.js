"use strict";

// Asks the JSON twin once a second and shows what it says. All that comes from it is set as text, never as markup.

const EVERY = 1000; // milliseconds from one answer to the next question
const LIMIT = 100; // methods
const WINDOWS = { "1m": "last minute", "10m": "last ten minutes", all: "since the start" };

const view = { filter: "", window: "1m", sort: "method", down: false, open: null, paused: false, last: null };
const $ = (id) => document.getElementById(id);

/* --- making elements --- */

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null));
  return element;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/* --- numbers for people --- */

const whole = new Intl.NumberFormat("en");
const count = (number) => (number < 1e6 ? whole.format(number) : short(number));
const short = (number) => {
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (number >= size) return (number / size).toPrecision(3) + letter;
  return String(number);
};
const rate = (number) => (number >= 1e4 ? short(number) : number >= 100 ? whole.format(Math.round(number)) : String(Number(number.toFixed(1))));
const share = (part, all) => {
  const percent = (100 * part) / all;
  return part === 0 ? "0" : percent < 0.1 ? "<0.1" : percent >= 10 ? percent.toFixed(0) : percent.toFixed(1);
};
function time(seconds) {
  if (seconds < 0.001) return [String(Math.round(seconds * 1e6)), "µs"];
  if (seconds < 1) return [String(Number((seconds * 1e3).toPrecision(seconds < 0.1 ? 2 : 3))), "ms"];
  if (seconds < 100) return [String(Number(seconds.toPrecision(seconds < 10 ? 2 : 3))), "s"];
  if (seconds < 5400) return [String(Math.round(seconds / 60)), "min"];
  return seconds < 129600 ? [String(Math.round(seconds / 3600)), "h"] : [String(Math.round(seconds / 86400)), "d"];
}
const withUnit = ([number, unit]) => [number, h("span", { class: "unit" }, unit)];
const shownTime = (seconds) => (seconds === null || seconds === undefined ? [h("span", { class: "zero" }, "–")] : withUnit(time(seconds)));
const duration = (seconds) => time(seconds).join(" ");
const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

function parts(method) {
  const cut = method.lastIndexOf("/");
  return cut < 1 ? ["", method] : [method.slice(1, cut), method.slice(cut + 1)];
}

/* --- pictures --- */

// The second that runs is left out: it is not over.
function bars(seconds, className, width, height) {
  const over = seconds ? seconds.slice(0, -1) : [];
  const most = Math.max(1, ...over.map(([ok, failed]) => ok + failed));
  const step = width / Math.max(1, over.length);
  const column = (index, from, value) => {
    const top = ((height - 1) * (from + value)) / most, bottom = ((height - 1) * from) / most;
    const tall = value ? Math.max(top - bottom, 1) : 0;
    return value ? `M${(index * step).toFixed(2)} ${(height - 1 - bottom - tall).toFixed(2)}h${(step * 0.72).toFixed(2)}v${tall.toFixed(2)}h-${(step * 0.72).toFixed(2)}z` : "";
  };
  return s("svg", { class: className, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `RPCs per second in the last minute, ${most} at most` },
    s("path", { class: "base", d: `M0 ${height - 0.5}H${width}` }),
    s("path", { class: "ended", d: over.map(([ok, failed], index) => column(index, failed, ok)).join("") }),
    s("path", { class: "failed", d: over.map(([, failed], index) => column(index, 0, failed)).join("") }));
}

// From 0.1 ms to 10 s, each power of ten as wide as the next: a line from p50 to p99.
function range(latency) {
  const place = (seconds) => 4 + 118 * Math.min(1, Math.max(0, (Math.log10(seconds) + 4) / 5));
  const picture = s("svg", { viewBox: "0 0 126 14", "aria-hidden": "true" }, s("path", { class: "track", d: "M4 7H122M27.6 5v4M51.2 5v4M74.8 5v4M98.4 5v4" }));
  if (latency) picture.append(s("path", { class: "span", d: `M${place(latency.p50)} 7H${place(latency.p99) + 0.01}` }), s("circle", { class: "median", cx: place(latency.p50), cy: 7, r: 3 }));
  return picture;
}

/* --- the head --- */

function showHead(state) {
  document.title = state.title ? `${state.title} – rpcz` : "rpcz";
  $("title").textContent = state.title;
  $("about").textContent = `pid ${state.pid}, up ${duration(state.uptime)}`;
}

function status(kind, text) {
  if ($("status").dataset.state !== kind || kind !== "live") $("status").textContent = text;
  $("status").dataset.state = kind;
}

function tile(title, figure, note, more) {
  return h("div", { class: "tile" }, h("h2", {}, title), h("p", { class: "figure" }, figure), h("p", { class: "note" }, note), more || null);
}

function showTotals({ totals }) {
  const minute = totals.seconds.reduce(([ok, failed], second) => [ok + second[0], failed + second[1]], [0, 0]);
  const ended = minute[0] + minute[1];
  const latency = totals.latency || {};
  const failed = ended ? share(minute[1], ended) : "–";
  $("totals").replaceChildren(
    tile("RPCs per second", rate(totals.rate), `${count(totals.ended)} in all`, bars(totals.seconds, "chart", 590, 68)),
    tile("In flight", count(totals.in_flight), totals.methods === 1 ? "of 1 method" : `of ${count(totals.methods)} methods`),
    tile("Failed", [h("span", { class: minute[1] ? "is-bad" : null }, failed), ended ? h("span", { class: "unit" }, "%") : null], `${count(minute[1])} in the last minute`),
    tile("Latency", h("span", { class: "pair" }, h("span", {}, shownTime(latency.p50)), h("span", {}, shownTime(latency.p99))), "p50 and p99 of the last minute"));
}

/* --- the methods --- */

const at = (row, name) => (row.latency && row.latency[view.window] ? row.latency[view.window][name] : null);
const latencyColumn = (name) => ({ key: name, title: name, value: (row) => at(row, name) ?? -1, cell: (row) => shownTime(at(row, name)), number: true });

const COLUMNS = [
  { key: "method", title: "Method", value: (row) => row.method + row.side },
  { key: "minute", title: "Last minute", cell: (row) => [bars(row.seconds, "spark", 118, 26)] },
  { key: "rate", title: "Per s", value: (row) => row.rate ?? -1, cell: (row) => [row.rate === null ? h("span", { class: "zero" }, "–") : row.rate ? rate(row.rate) : h("span", { class: "zero" }, "0")], number: true },
  { key: "flying", title: "In flight", value: (row) => row.in_flight, cell: (row) => [row.in_flight ? count(row.in_flight) : h("span", { class: "zero" }, "0")], number: true },
  latencyColumn("p50"), latencyColumn("p90"), latencyColumn("p99"),
  { key: "range", title: "0.1 ms – 10 s", cell: (row) => [range(row.latency && row.latency[view.window])] },
  { key: "failures", title: "Failed", value: (row) => row.failed, cell: failures, number: true },
  { key: "total", title: "Total", value: (row) => row.ended, cell: (row) => [count(row.ended)], number: true },
];

function failures(row) {
  if (!row.failed) return [h("span", { class: "zero" }, "0")];
  const [most, ...others] = Object.keys(row.codes);
  return [h("span", { class: "is-bad", title: `${count(row.failed)} of ${count(row.ended)}` }, share(row.failed, row.ended), h("span", { class: "unit" }, "%")),
    h("span", { class: "code" }, others.length ? `${most} +${others.length}` : most)];
}

function makeHead() {
  $("table").querySelector("thead").replaceChildren(h("tr", { class: "heads", role: "row" }, COLUMNS.map((column) => {
    const label = column.value ? h("button", { type: "button" }, column.title) : column.title;
    if (column.value) label.addEventListener("click", () => sortBy(column));
    return h("th", { scope: "col", role: "columnheader", class: `${column.key} ${column.number ? "number" : ""}`, "data-key": column.key }, label);
  })));
  markSorted();
}

function sortBy(column) {
  view.down = view.sort === column.key ? !view.down : Boolean(column.number);
  view.sort = column.key;
  markSorted();
  if (view.last) showMethods(view.last);
}

function markSorted() {
  for (const head of $("table").querySelectorAll("th")) {
    head.setAttribute("aria-sort", head.dataset.key === view.sort ? (view.down ? "descending" : "ascending") : "none");
  }
}

const keyOf = (row) => `${row.side} ${row.method}`;
const bodies = new Map(); // one <tbody> for each method: it stays, so that focus and hover do

function bodyOf(row) {
  const key = keyOf(row);
  if (!bodies.has(key)) {
    const [service, name] = parts(row.method);
    const opener = h("button", { class: "opener", type: "button", "aria-expanded": "false" },
      h("span", { class: "side" }, row.side), h("span", { class: "names" }, h("b", {}, name), h("span", {}, service)));
    const line = h("tr", { class: "row", role: "row" }, h("td", { class: "method", role: "cell", title: row.method }, opener),
      COLUMNS.slice(1).map((column) => h("td", { role: "cell", class: `${column.key} ${column.number ? "number" : ""}` })));
    line.addEventListener("click", () => toggle(key, row));
    bodies.set(key, h("tbody", { role: "rowgroup", "data-method": row.method }, line));
  }
  return bodies.get(key);
}

function toggle(key, row) {
  view.open = view.open && view.open.key === key ? null : { key, side: row.side, method: row.method };
  if (view.last) showMethods(view.last);
  ask();
}

function showMethods(state) {
  const column = COLUMNS.find(({ key }) => key === view.sort);
  const order = (one, other) => (one < other ? -1 : one > other ? 1 : 0);
  const rows = [...state.methods].sort((one, other) => (view.down ? -1 : 1) * order(column.value(one), column.value(other)) || order(keyOf(one), keyOf(other)));
  const kept = rows.map((row) => showRow(bodyOf(row), row, state.chosen));
  const keys = new Set(rows.map(keyOf));
  for (const [key, body] of bodies) if (!keys.has(key)) { body.remove(); bodies.delete(key); }
  let place = $("table").querySelector("thead");
  for (const body of kept) { // moved only where the order has changed, for that would take the focus away
    if (place.nextElementSibling !== body) place.after(body);
    place = body;
  }
  $("count").textContent = state.found > rows.length ? `${rows.length} of ${count(state.found)}, the busiest; filter to see others` : count(rows.length);
  showNone(rows, state);
}

function showRow(body, row, chosen) {
  const line = body.firstChild, open = view.open !== null && view.open.key === keyOf(row);
  line.classList.toggle("open", open);
  line.querySelector(".opener").setAttribute("aria-expanded", String(open));
  COLUMNS.slice(1).forEach((column, index) => line.children[index + 1].replaceChildren(...column.cell(row).filter((part) => part !== null)));
  if (body.children.length > 1) body.lastChild.remove();
  if (open) body.append(inside(chosen && keyOf(chosen) === keyOf(row) ? chosen : { ...row, recent: [], failures: [], slow: [] }));
  return body;
}

function showNone(rows, state) {
  $("none").hidden = $("table").hidden = false;
  if (rows.length) { $("none").hidden = true; return; }
  $("table").hidden = true;
  if ($("none").dataset.filter === view.filter) return;
  $("none").dataset.filter = view.filter;
  const line = s("svg", { viewBox: "0 0 120 32", "aria-hidden": "true" }, s("path", { d: "M2 16H42l6-10 8 20 6-10H118", "stroke-dasharray": "1 6" }));
  if (!view.filter) {
    $("none").replaceChildren(line, h("b", {}, "No RPC has been seen yet"), h("p", {}, "This Rpcz shows what the servers and channels do in whose stack it stands. The first RPC appears here within a second."));
    return;
  }
  const clear = h("button", { class: "clear", type: "button" }, "Show all methods");
  clear.addEventListener("click", () => { $("filter").value = ""; filter(); $("filter").focus(); });
  $("none").replaceChildren(line, h("b", {}, `No method has “${view.filter}” in its name`), h("p", {}, `${count(state.totals.methods)} methods are known.`), h("p", {}, clear));
}

/* --- one method, opened --- */

function inside(row) {
  const ok = row.ended - row.failed, codes = [["OK", ok], ...Object.entries(row.codes)];
  const bar = (number) => { const line = h("i"); line.style.width = `${Math.max(0.5, (100 * number) / Math.max(1, row.ended))}%`; return line; };
  const line = (window) => h("tr", {}, h("td", {}, WINDOWS[window]), ["p50", "p90", "p99"].map((name) => h("td", { class: "number" }, shownTime(row.latency && row.latency[window] && row.latency[window][name]))));
  return h("tr", { class: "inside", role: "row" }, h("td", { role: "cell", colspan: COLUMNS.length }, h("div", { class: "facts" },
    h("section", {}, h("h3", {}, "How they ended"), h("ul", { class: "codes" }, codes.map(([code, number]) => h("li", { class: code }, h("span", {}, code), bar(number), h("span", { class: "number" }, count(number)))))),
    h("section", {}, h("h3", {}, "Latency"), h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, ""), ["p50", "p90", "p99"].map((name) => h("th", { scope: "col", class: "number" }, name)))), h("tbody", {}, Object.keys(WINDOWS).map(line)))),
    samples({ "Latest failures": row.failures, "Slowest of the last ten minutes": row.slow, Latest: row.recent }))));
}

const SAMPLE = [["At", "at"], ["Code", "end"], ["Took", "number"], ["Messages", "number"], ["Attempts", "number tries"], ["Client", "peer"], ["Request id", "id"], ["Details", "details"]];

function samples(groups) {
  const known = Object.entries(groups).filter(([, rpcs]) => rpcs.length);
  const line = (rpc) => {
    const cells = [clock(rpc.at), h("span", { class: rpc.code === "OK" ? null : "is-bad" }, rpc.code), shownTime(rpc.seconds), `${count(rpc.requests)} / ${count(rpc.responses)}`, count(rpc.attempts), rpc.peer, rpc.request_id, rpc.details];
    return h("tr", {}, cells.map((cell, index) => h("td", { class: SAMPLE[index][1] }, cell || "")));
  };
  const rpcs = known.flatMap(([, some]) => some), none = (name) => rpcs.every((rpc) => (name === "attempts" ? rpc.attempts < 2 : !rpc[name]));
  const table = h("table", { class: ["attempts", "peer", "request_id", "details"].filter(none).map((name) => `no-${name}`).join(" ") },
    h("thead", {}, h("tr", {}, SAMPLE.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
    known.map(([title, some]) => h("tbody", {}, h("tr", {}, h("th", { scope: "rowgroup", colspan: SAMPLE.length, class: "group" }, title)), some.map(line))));
  return h("section", { class: "samples" }, h("h3", {}, "Samples"), known.length ? h("div", { class: "scroll" }, table) : h("p", { class: "quiet" }, "None are kept of this method at the moment."));
}

/* --- what is in flight, and what guards it --- */

function left(rpc) {
  if (rpc.left === null) return h("span", { class: "zero" }, "none");
  const used = h("b"), late = rpc.left < 0.2 * (rpc.age + rpc.left);
  used.style.width = `${Math.min(100, (100 * rpc.age) / Math.max(1e-9, rpc.age + rpc.left))}%`;
  return h("span", { class: `left ${late ? "is-late" : ""}` }, h("i", {}, used), h("span", {}, rpc.left > 0 ? withUnit(time(rpc.left)) : "over"));
}

function showFlying(state) {
  const rpcs = state.in_flight, of = state.totals.in_flight;
  $("flying-count").textContent = of > rpcs.length ? `the ${rpcs.length} oldest of ${count(of)}` : count(of);
  $("flying-none").hidden = rpcs.length > 0;
  $("flying-table").hidden = rpcs.length === 0;
  $("flying-table").classList.toggle("no-ids", rpcs.every((rpc) => !rpc.request_id));
  const heads = [["Method", ""], ["Client", "peer"], ["Request id", "id"], ["Age", "number"], ["Deadline in", "number"]];
  const line = (rpc) => {
    const [service, name] = parts(rpc.method);
    return h("tr", {}, h("td", {}, h("span", { class: "names" }, h("b", {}, name), h("span", {}, `${rpc.side}, ${service}`))), h("td", { class: "peer quiet" }, rpc.peer || ""), h("td", { class: "id quiet" }, (rpc.request_id || "").slice(0, 36)),
      h("td", { class: "number" }, shownTime(rpc.age)), h("td", { class: "number" }, left(rpc)));
  };
  $("flying-table").replaceChildren(h("thead", {}, h("tr", {}, heads.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))), h("tbody", {}, rpcs.map(line)));
}

const words = (name) => name.replaceAll("_", " ");
const fact = (value) => (value === null ? "–" : value === true ? "yes" : value === false ? "no" : typeof value === "number" ? (Number.isInteger(value) ? count(value) : String(Number(value.toPrecision(3)))) : value);

function showGuards(state) {
  $("guards").hidden = state.watched.length === 0;
  $("cards").replaceChildren(...state.watched.map((card) => h("article", { class: "card guard" },
    h("h3", {}, h("span", { title: card.what }, card.what), h("span", { class: `pill ${card.level}` }, card.state)),
    card.name ? h("p", { class: "key" }, card.name) : null,
    h("dl", {}, Object.entries(card.facts).map(([name, value]) => [h("dt", {}, words(name)), h("dd", {}, name.endsWith("_in") && value !== null ? withUnit(time(value)) : fact(value))])))));
}

/* --- asking --- */

let timer = 0, running = null, asked = 0;

async function ask() {
  clearTimeout(timer);
  if (running) running.abort();
  running = new AbortController();
  const mine = ++asked, signal = AbortSignal.any ? AbortSignal.any([running.signal, AbortSignal.timeout(5000)]) : running.signal;
  const query = new URLSearchParams({ limit: LIMIT, filter: view.filter });
  if (view.open) { query.set("method", view.open.method); query.set("side", view.open.side); }
  try {
    const answer = await fetch(`json?${query}`, { signal, cache: "no-store" });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const state = await answer.json();
    if (mine !== asked) return;
    show(state);
  } catch (error) {
    if (mine !== asked) return;
    const since = view.last ? ` since ${clock(view.last.at)}` : "";
    status("lost", `No answer${since}; asking again`);
  }
  if (!view.paused && !document.hidden) timer = setTimeout(ask, EVERY);
}

function show(state) {
  view.last = state;
  for (const id of ["totals", "methods", "flying"]) $(id).hidden = false;
  showHead(state); showTotals(state); showMethods(state); showFlying(state); showGuards(state);
  status(view.paused ? "paused" : "live", view.paused ? `Paused at ${clock(state.at)}` : "Live");
  document.body.dataset.at = state.at;
}

/* --- hands and keys --- */

function filter() {
  view.filter = $("filter").value.trim().toLowerCase();
  ask();
}

function pause() {
  view.paused = !view.paused;
  $("pause").setAttribute("aria-pressed", String(view.paused));
  $("pause").textContent = view.paused ? "Resume" : "Pause";
  if (view.paused) { clearTimeout(timer); status("paused", view.last ? `Paused at ${clock(view.last.at)}` : "Paused"); } else ask();
}

$("filter").addEventListener("input", filter);
$("pause").addEventListener("click", pause);
$("window").addEventListener("change", (event) => { view.window = event.target.value; if (view.last) showMethods(view.last); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && !view.paused) ask(); });
document.addEventListener("keydown", (event) => {
  const typing = event.target === $("filter");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); $("filter").focus(); $("filter").select(); }
  if (event.key === "Escape" && typing) { $("filter").value = ""; filter(); $("filter").blur(); }
});

makeHead();
ask();
