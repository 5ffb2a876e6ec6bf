// Listener → route → pool → backend, with what flows over each edge. Large gateways: the busiest of each column, and
// how many others there are.

import {element, milliseconds, rate, setClass, setText} from "./format.js";

const MOST = 10;
const SVG = "http://www.w3.org/2000/svg";
const columns = {};
for (const name of ["listeners", "routes", "pools", "backends"]) columns[name] = document.getElementById(`column-${name}`);
const picture = document.querySelector("#topology .columns");
const edges = document.querySelector("#topology .edges");
const narrow = matchMedia("(max-width: 760px)");

let shape = null;
let chosen = {};   // column → keys shown
let nodes = {};    // column → key → {box, second}
let drawn = [];    // edges: {from, to, path, label, figures}

export const keyOf = (backend) => `${backend.pool}|${backend.addr}`;

export function stateOf(backend) {
  if (!backend.healthy) return ["bad", "down"];
  if (backend.breaker === "open") return ["bad", "breaker open"];
  if (backend.ejected) return ["bad", "ejected"];
  if (backend.draining) return ["warn", "draining"];
  if (backend.breaker === "half_open") return ["warn", "breaker half-open"];
  if (backend.weight === 0) return ["warn", "weight 0"];
  if (backend.warming_up) return ["warn", "warming up"];
  return ["good", "up"];
}

export function matchOf(route) {
  if (route.type === "tcp") return route.sni ? `TLS to ${route.sni.join(", ")}` : "TCP";
  const m = route.match || {};
  const parts = [(m.methods || []).join("|"), m.host || "", m.path || (m.path_prefix ? `${m.path_prefix.replace(/\/$/, "")}/…` : "")];
  return parts.filter(Boolean).join(" ") || "everything";
}

const poolsOf = (route) => route.split ? route.split.map((arm) => arm.pool) : route.pool ? [route.pool] : [];

// The busiest, those in trouble first; in the order of the configuration.
function choose(items, key, figure, troubled) {
  if (items.length <= MOST) return items;
  const ranked = [...items].sort((a, b) => troubled(b) - troubled(a) || figure(b) - figure(a));
  const kept = new Set(ranked.slice(0, MOST).map(key));
  return items.filter((item) => kept.has(key(item)));
}

function column(name, items, all, key, build) {
  const made = {};
  const boxes = items.map((item) => {
    const second = element("span");
    const box = element("li", {class: "node", title: build.title(item)}, element("b", {}, build.name(item)), second);
    made[key(item)] = {box, second, item};
    return box;
  });
  if (items.length < all) boxes.push(element("li", {class: "node more"}, `and ${all - items.length} more`));
  if (!all) boxes.push(element("li", {class: "node more"}, "none"));
  columns[name].replaceChildren(...boxes);
  nodes[name] = made;
  chosen[name] = new Set(items.map(key));
}

export function build(topology, figures) {
  shape = topology;
  nodes = {};
  const busy = (map, name) => (map[name] || {}).requests || 0;
  const name = (item) => item.name;
  const calm = () => 0;
  const routes = choose(topology.routes, name, (r) => busy(figures.routes, r.name), calm);
  const wanted = new Set(routes.flatMap(poolsOf));
  const pools = choose(topology.pools, name, (p) => wanted.has(p.name) ? 1 : 0, (p) => p.panic ? 1 : 0);
  const shown = new Set(pools.map(name));
  const backends = choose(topology.backends.filter((b) => shown.has(b.pool)), keyOf,
    (b) => (figures.backends[keyOf(b)] || [])[2] || 0, (b) => stateOf(b)[0] === "bad" ? 1 : 0);
  column("listeners", choose(topology.listeners, name, calm, calm), topology.listeners.length, name,
    {name: (l) => l.name, title: (l) => `${l.kind} ${l.address}`});
  column("routes", routes, topology.routes.length, name, {name: (r) => r.name, title: matchOf});
  column("pools", pools, topology.pools.length, name, {name: (p) => p.name, title: (p) => p.load_balancer});
  column("backends", backends, topology.backends.length, keyOf, {name: (b) => b.addr, title: (b) => `pool ${b.pool}`});
  connect();
  update(figures);
  place();
}

function connect() {
  edges.replaceChildren();
  drawn = [];
  const add = (from, to, figuresOf) => {
    if (!from || !to) return;
    const path = document.createElementNS(SVG, "path");
    const label = document.createElementNS(SVG, "text");
    edges.append(path, label);
    drawn.push({from: from.box, to: to.box, path, label, figuresOf});
  };
  for (const listener of shape.listeners) {
    for (const route of listener.routes) {
      const only = shape.listeners.filter((l) => l.routes.includes(route)).length === 1;
      add(nodes.listeners[listener.name], nodes.routes[route], (f) => only ? routeFigures(f, route) : null);
    }
  }
  for (const route of shape.routes) {
    for (const pool of poolsOf(route)) {
      add(nodes.routes[route.name], nodes.pools[pool], (f) => route.split
        ? {n: (f.arms[route.name] || {})[pool] || 0, failed: 0, p95: null}
        : routeFigures(f, route.name));
    }
  }
  for (const backend of shape.backends) {
    add(nodes.pools[backend.pool], nodes.backends[keyOf(backend)], (f) => {
      const [, , requests = 0, failed = 0, tcp = 0] = f.backends[keyOf(backend)] || [];
      return {n: requests + tcp, failed, p95: null};
    });
  }
}

function routeFigures(figures, name) {
  const one = figures.routes[name] || {};
  return {n: one.requests || 0, failed: one.failed || 0, p95: one.ms ? one.ms[1] : null};
}

// Where the boxes are decides where the edges go: after every change of shape or size.
function place() {
  if (narrow.matches || !shape) return;
  const origin = picture.getBoundingClientRect();
  for (const {from, to, path, label} of drawn) {
    const [a, b] = [from.getBoundingClientRect(), to.getBoundingClientRect()];
    const [x1, y1] = [a.right - origin.left, a.top + a.height / 2 - origin.top];
    const [x2, y2] = [b.left - origin.left, b.top + b.height / 2 - origin.top];
    const middle = (x1 + x2) / 2;
    path.setAttribute("d", `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`);
    label.setAttribute("x", x2 - 7);
    label.setAttribute("y", y2 - 5);
  }
}

export function update(figures) {
  if (!shape || document.hidden) return;
  for (const {box, second, item} of Object.values(nodes.listeners)) {
    const now = figures.listeners[item.metric] || {};
    setText(second, `${item.kind} ${item.address} · ${now.active || 0} open${now.refused ? ` · ${rate(now.refused)}/s refused` : ""}`);
    setClass(box, `node ${now.refused ? "warn" : "good"}`);
  }
  for (const {box, second, item} of Object.values(nodes.routes)) {
    const now = routeFigures(figures, item.name);
    setText(second, `${matchOf(item)}${now.n ? ` · p95 ${milliseconds(now.p95)}` : ""}`);
    setClass(box, `node ${now.failed ? "bad" : "good"}`);
  }
  for (const {box, second, item} of Object.values(nodes.pools)) {
    const members = shape.backends.filter((b) => b.pool === item.name);
    const usable = members.filter((b) => ["up", "warming up", "breaker half-open"].includes(stateOf(b)[1])).length;
    setText(second, `${item.load_balancer} · ${usable} of ${members.length} take work${item.panic ? " · panic" : ""}`);
    setClass(box, `node ${item.panic || (members.length && !usable) ? "bad" : usable < members.length ? "warn" : "good"}`);
  }
  for (const {box, second, item} of Object.values(nodes.backends)) {
    const [, , , , , active = 0] = figures.backends[keyOf(item)] || [];
    const [level, word] = stateOf(item);
    setText(second, `${word} · ${active} active${item.weight === 1 ? "" : ` · weight ${item.weight}`}`);
    setClass(box, `node ${level}`);
  }
  for (const {path, label, figuresOf} of drawn) {
    const now = figuresOf(figures);
    const failing = now && now.failed > 0;
    setClassOf(path, failing ? "bad" : "");
    path.style.strokeWidth = `${now && now.n ? Math.min(7, 1.5 + Math.log10(1 + now.n) * 1.4) : 1}px`;
    setClassOf(label, failing ? "bad" : "");
    const share = failing ? ` · ${Math.max(1, Math.round(100 * now.failed / now.n))}% err` : "";
    setText(label, now && now.n ? `${rate(now.n)}/s${share || (now.p95 !== null ? ` · ${milliseconds(now.p95)}` : "")}` : "");
  }
}

function setClassOf(node, name) {
  if (node.getAttribute("class") !== name) node.setAttribute("class", name);
}

new ResizeObserver(place).observe(picture);
