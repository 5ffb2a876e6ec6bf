// The tables below the picture: one panel, a tab for each. Rows are made once per page of a table and then only their
// figures change, so that focus, selection and what somebody is typing stay.

import {change, read, say} from "./api.js";
import {clock, element, milliseconds, rate, setClass, setText, span} from "./format.js";
import {keyOf, matchOf, stateOf} from "./topology.js";

const PAGE = 50;
const panel = document.getElementById("panel");
const filter = document.getElementById("filter");
const tabs = [...document.querySelectorAll("[role=tab]")];

let current = "backends";
let page = 0;
let order = {};      // tab → [column, direction]
let cells = [];      // figures of the rows that are shown: functions of the figures
let known = {topology: null, figures: null, happened: [], reloads: null, services: null};

const number = (text) => element("td", {class: "number"}, text);
const live = (cell, text, name) => { cells.push((figures) => { const [t, c] = [text(figures), name && name(figures)]; setText(cell, t); if (name) setClass(cell, c); }); return cell; };

// --- actions

async function act(button, work, done) {
  if (button.ariaBusy === "true") return;  // not disabled: it would lose the focus
  button.ariaBusy = "true";
  try {
    await work();
    say(done);
  } catch (error) {
    say(error.message);
  } finally {
    button.ariaBusy = "false";
  }
}

const path = (backend, verb) => `/backends/${encodeURIComponent(backend.addr)}/${verb}?pool=${encodeURIComponent(backend.pool)}`;

function drainButton(backend) {
  const verb = backend.draining ? "undrain" : "drain";
  return element("button", {
    "aria-label": `${verb} ${backend.addr} of ${backend.pool}`,
    onclick: (event) => act(event.target, () => change("POST", path(backend, verb)), `${backend.addr}: ${verb} asked for`),
  }, verb);
}

function weightField(value, label, set, reset) {
  const input = element("input", {type: "number", min: 0, max: 1000, value, "aria-label": label});
  input.addEventListener("change", () => { if (input.value !== "") act(input, () => set(Number(input.value)), `${label}: ${input.value}`); });
  return reset ? element("span", {}, input, " ", element("button", {"aria-label": `configured ${label}`, onclick: (event) => act(event.target, reset.back, `${label}: as configured`)}, `↺ ${reset.configured}`)) : input;
}

// --- the tabs: columns as [title, value to sort by, cell, is it a number]

const figuresOf = (backend) => (known.figures.backends[keyOf(backend)] || []);
const ofRoute = (route) => known.figures.routes[route.name] || {};

const TABLES = {
  backends: {
    rows: () => known.topology.backends,
    text: (b) => `${b.addr} ${b.pool} ${b.origin} ${stateOf(b)[1]} ${b.last_error} ${b.registrations.join(" ")}`,
    empty: "No backend: pools are empty, or nothing matches the filter.",
    columns: [
      ["State", (b) => stateOf(b)[1], (b) => element("td", {}, element("span", {class: `state ${stateOf(b)[0]}`}, stateOf(b)[1]))],
      ["Backend", (b) => b.addr, (b) => element("td", {class: "name", title: b.registrations.join(", ")}, b.addr, b.backup ? element("span", {class: "quiet"}, " backup") : "")],
      ["Pool", (b) => b.pool, (b) => element("td", {class: "name"}, b.pool)],
      ["Origin", (b) => b.origin, (b) => element("td", {}, b.origin)],
      ["Weight", (b) => b.weight, (b) => element("td", {}, weightField(b.weight, `weight of ${b.addr} of ${b.pool}`,
        (weight) => change("PUT", path(b, "weight"), {weight}),
        b.configured_weight !== undefined && {configured: b.configured_weight, back: () => change("DELETE", path(b, "weight"))}))],
      ["Requests/s", (b) => figuresOf(b)[2] || 0, (b) => live(number(""), () => rate(figuresOf(b)[2])), true],
      ["Failed/s", (b) => figuresOf(b)[3] || 0, (b) => live(number(""), () => rate(figuresOf(b)[3]), () => `number ${figuresOf(b)[3] ? "bad" : ""}`), true],
      ["TCP/s", (b) => figuresOf(b)[4] || 0, (b) => live(number(""), () => rate(figuresOf(b)[4])), true],
      ["Active", (b) => figuresOf(b)[5] || 0, (b) => live(number(""), () => String(figuresOf(b)[5] || 0)), true],
      ["Breaker", (b) => b.breaker, (b) => element("td", {class: b.breaker === "closed" ? "quiet" : "bad"}, b.breaker.replace("_", "-"))],
      ["Last error", (b) => b.last_error, (b) => element("td", {class: "wide quiet"}, b.last_error)],
      ["", null, (b) => element("td", {}, drainButton(b))],
    ],
  },
  routes: {
    rows: () => known.topology.routes,
    text: (r) => `${r.name} ${r.type} ${matchOf(r)} ${r.pool || ""} ${(r.split || []).map((arm) => arm.pool).join(" ")}`,
    empty: "No route, or nothing matches the filter.",
    columns: [
      ["Route", (r) => r.name, (r) => element("td", {class: "name"}, r.name)],
      ["Matches", matchOf, (r) => element("td", {class: "name"}, matchOf(r))],
      ["Goes to", (r) => r.pool || "", (r) => element("td", {}, ...goesTo(r))],
      ["Requests/s", (r) => ofRoute(r).requests || 0, (r) => live(number(""), () => rate(ofRoute(r).requests)), true],
      ["Failed/s", (r) => ofRoute(r).failed || 0, (r) => live(number(""), () => rate(ofRoute(r).failed), () => `number ${ofRoute(r).failed ? "bad" : ""}`), true],
      ...[["p50", 0], ["p95", 1], ["p99", 2]].map(([title, i]) => [title, (r) => (ofRoute(r).ms || [])[i] || 0, (r) => live(number(""), () => milliseconds((ofRoute(r).ms || [])[i])), true]),
    ],
  },
  services: {
    rows: () => known.services || [],
    text: (s) => `${s.id} ${s.name} ${s.address} ${s.state} ${s.tags.join(" ")}`,
    empty: "No service is registered, or nothing matches the filter.",
    columns: [
      ["State", (s) => s.state, (s) => element("td", {}, element("span", {class: `state ${{passing: "good", critical: "bad"}[s.state] || "warn"}`}, s.state))],
      ["Service", (s) => s.name, (s) => element("td", {class: "name"}, s.name)],
      ["Id", (s) => s.id, (s) => element("td", {class: "name"}, s.id)],
      ["Address", (s) => s.address, (s) => element("td", {}, s.address)],
      ["Tags", (s) => s.tags.join(), (s) => element("td", {class: "name"}, s.tags.join(", "))],
      ["Pools", (s) => s.pools.join(), (s) => element("td", {class: s.unrouted ? "warn" : ""}, s.unrouted ? "none" : s.pools.join(", "))],
      ["Expires in", (s) => s.expires_in_s, (s) => live(number(""), () => span(s.expires_in_s - (performance.now() - known.servicesAt) / 1000)), true],
    ],
  },
  happened: {
    rows: () => [...known.happened].reverse(),
    text: (e) => `${e.kind} ${e.what} ${e.name} ${e.detail}`,
    empty: "Nothing has happened since gogate started, or nothing matches the filter.",
    columns: [
      ["Time", null, (e) => element("td", {class: "quiet"}, clock(e.time))],
      ["What", null, (e) => element("td", {}, element("span", {class: levelOf(e)}, `${e.kind} ${e.what}`))],
      ["Of", null, (e) => element("td", {class: "name"}, e.name)],
      ["Detail", null, (e) => element("td", {class: "wide quiet"}, e.detail)],
    ],
  },
  reloads: {
    rows: () => (known.reloads || {}).history || [],
    text: (r) => `${r.cause} ${r.result} ${r.problems.join(" ")} ${r.changes.join(" ")}`,
    empty: "No reload yet.",
    columns: [
      ["Time", null, (r) => element("td", {class: "quiet"}, clock(r.time))],
      ["Result", null, (r) => element("td", {}, element("span", {class: `state ${r.result === "failure" ? "bad" : "good"}`}, r.result))],
      ["Cause", null, (r) => element("td", {}, r.cause)],
      ["Generation", null, (r) => number(String(r.generation)), true],
      ["Plan", null, (r) => element("td", {class: "wide"}, ...listed(r))],
    ],
  },
};

function levelOf(event) {
  const word = `${event.kind} ${event.what}`;
  if (/down|failure|open$|ejected$|replaced|expired|critical/.test(word) && !/no longer/.test(word)) return "bad";
  return /draining|suspect|removed|dead/.test(word) ? "warn" : "";
}

function goesTo(route) {
  if (route.redirect) return [`redirect to ${route.redirect}`];
  if (route.fixed_response) return [`answers ${route.fixed_response}`];
  if (!route.split) return [route.pool];
  const base = `/routes/${encodeURIComponent(route.name)}/split`;
  return route.split.flatMap((arm, i) => [i ? element("br") : "", weightField(arm.weight, `weight of ${arm.pool} in ${route.name}`,
    (weight) => change("PUT", base, {weights: {[arm.pool]: weight}}),
    arm.configured_weight !== undefined && {configured: arm.configured_weight, back: () => change("DELETE", base)}),
  ` ${arm.pool} ${Math.round(arm.share * 100)} %${arm.canary ? " canary" : ""}`]);
}

function listed(reload) {
  const lines = reload.result === "failure" ? reload.problems : reload.changes;
  return lines.length ? [element("ul", {class: "changes"}, ...lines.map((one) => element("li", {class: reload.result === "failure" ? "bad" : ""}, one)))] : ["–"];
}

// --- drawing

function drawTable() {
  cells = [];
  const table = TABLES[current];
  if (!known.topology) return;
  const wanted = filter.value.trim().toLowerCase();
  let rows = table.rows().filter((row) => !wanted || table.text(row).toLowerCase().includes(wanted));
  const [by, direction] = order[current] || [];
  if (by !== undefined) {
    const value = table.columns[by][1];
    rows = [...rows].sort((a, b) => direction * (value(a) > value(b) ? 1 : value(a) < value(b) ? -1 : 0));
  }
  page = Math.min(page, Math.max(0, Math.ceil(rows.length / PAGE) - 1));
  const shown = rows.slice(page * PAGE, (page + 1) * PAGE);
  const head = table.columns.map(([title, value, , isNumber], i) => element("th", {
    scope: "col", class: isNumber ? "number" : "", "aria-sort": by === i ? (direction > 0 ? "ascending" : "descending") : undefined,
  }, value ? element("button", {onclick: () => { order[current] = [i, by === i ? -direction : isNumber ? -1 : 1]; redraw(); }}, `${title}${by === i ? (direction > 0 ? " ↑" : " ↓") : ""}`) : title));
  panel.replaceChildren(...(shown.length ? [
    element("table", {}, element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...shown.map((row) => element("tr", {}, ...table.columns.map(([, , cell]) => cell(row)))))),
    rows.length > PAGE ? pages(rows.length) : "",
  ].filter(Boolean) : [element("p", {class: "empty"}, table.empty)]));
  updateFigures();
}

function pages(count) {
  const last = Math.ceil(count / PAGE) - 1;
  const turn = (to) => () => { page = to; redraw(); };
  return element("div", {class: "pages"},
    element("button", {disabled: page === 0, onclick: turn(page - 1)}, "← earlier"),
    `${page * PAGE + 1}–${Math.min(count, (page + 1) * PAGE)} of ${count}`,
    element("button", {disabled: page === last, onclick: turn(page + 1)}, "later →"));
}

// Drawing anew would take what somebody is typing, and the focus: it waits for the first and gives the second back.
function redraw() {
  const active = document.activeElement;
  const inside = panel.contains(active) && active !== panel;
  if (inside && active.tagName === "INPUT" && active.value !== active.defaultValue) {
    active.addEventListener("blur", redraw, {once: true});
    return;
  }
  const label = inside && (active.getAttribute("aria-label") || active.textContent);
  drawTable();
  if (!label) return;
  const same = [...panel.querySelectorAll("button, input")];
  const opposite = label.startsWith("drain ") ? `un${label}` : label.replace(/^undrain /, "drain ");
  const next = same.find((one) => (one.getAttribute("aria-label") || one.textContent) === label) ||
    same.find((one) => one.getAttribute("aria-label") === opposite);
  if (next) next.focus();
}

function updateFigures() {
  if (!document.hidden && known.figures) for (const cell of cells) cell(known.figures);
}

// --- what comes

export function topologyChanged(topology, figures) {
  known = {...known, topology, figures};
  if (current === "backends" || current === "routes") redraw();
}

export function beat(figures) {
  known.figures = figures;
  updateFigures();
}

export function happened(news) {
  known.happened = [...known.happened, ...news].slice(-500);
  if (current === "happened") redraw();
  if (news.some((one) => one.kind === "reload") && current === "reloads") fetchReloads();
  if (news.some((one) => one.kind === "service") && current === "services") fetchServices();
}

export function begin(all) {
  known.happened = all;
  redraw();
}

async function fetchReloads() {
  try {
    known.reloads = await read("/config/status");
    if (current === "reloads") redraw();
  } catch (error) {
    say(error.message);
  }
}

async function fetchServices() {
  try {
    known.services = (await read("/v1/services")).services;
  } catch {
    known.services = [];  // the registry is off
  }
  known.servicesAt = performance.now();
  if (current === "services") redraw();
}

setInterval(() => { if (current === "services" && !document.hidden) fetchServices(); }, 3000);

function open(tab) {
  current = tab.id.slice("tab-".length);
  page = 0;
  for (const one of tabs) {
    one.setAttribute("aria-selected", String(one === tab));
    one.tabIndex = one === tab ? 0 : -1;
  }
  panel.setAttribute("aria-labelledby", tab.id);
  if (current === "reloads") fetchReloads();
  if (current === "services") fetchServices();
  drawTable();
}

for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const next = tabs[(i + step + tabs.length) % tabs.length];
    next.focus();
    open(next);
  });
}
filter.addEventListener("input", () => { page = 0; drawTable(); });
