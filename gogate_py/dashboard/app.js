// The page: one event stream in, three parts that draw what it says.

import * as charts from "./charts.js";
import {milliseconds, rate, setClass, setText, span} from "./format.js";
import * as tables from "./tables.js";
import * as topology from "./topology.js";

const SILENT = 5000;
const at = (id) => document.getElementById(id);
let shape = null;
let figures = {routes: {}, arms: {}, listeners: {}, backends: {}};
let heard = 0;

function pill(id, text, level) {
  setText(at(id), text);
  setClass(at(id), `pill ${level}`);
}

function showFacts() {
  if (!shape) return;
  const serving = shape.workers.filter((one) => one.state === "serving").length;
  setText(at("facts"), `${shape.version} · up ${span(Date.now() / 1000 - shape.started)} · configuration ${shape.generation} · ${serving} of ${shape.workers.length} workers`);
}

function showShape() {
  pill("ready", shape.ready ? "ready" : "not ready", shape.ready ? "good" : "bad");
  const said = [...shape.reasons, ...shape.warnings];
  at("notices").hidden = !said.length;
  setText(at("notices"), said.join(" · "));
  showFacts();
  topology.build(shape, figures);
  tables.topologyChanged(shape, figures);
}

function showTotal(total) {
  setText(at("tile-requests"), rate(total.requests));
  setText(at("tile-failed"), total.failed ? `${rate(total.failed)}/s` : "0");
  setClass(at("tile-failed"), total.failed ? "bad" : "");
  for (const name of ["p50", "p95", "p99"]) setText(at(`tile-${name}`), milliseconds(total[`${name}_ms`]));
  setText(at("tile-connections"), String(total.connections));
  setText(at("tile-in-flight"), String(total.in_flight));
}

function showBeat(beat) {
  const backends = {};
  for (const one of beat.backends) backends[`${one[0]}|${one[1]}`] = one;
  figures = {...beat, backends};
  showTotal(beat.total);
  showFacts();
  charts.add(beat.total);
  topology.update(figures);
  tables.beat(figures);
}

function listen() {
  const stream = new EventSource("/events");
  const on = (kind, take) => stream.addEventListener(kind, (event) => {
    heard = performance.now();
    pill("link", "live", "good");
    take(JSON.parse(event.data));
  });
  on("topology", (data) => { shape = data; showShape(); });
  on("history", (data) => {
    charts.begin(data);
    tables.begin(data.happened);
    const last = data.lines.at(-1);
    if (last) showTotal(Object.fromEntries(data.columns.map((name, i) => [name, last[i]])));
  });
  on("beat", showBeat);
  on("happened", tables.happened);
  stream.onerror = () => {
    pill("link", "connection lost, trying again", "bad");
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}

setInterval(() => {
  if (heard && performance.now() - heard > SILENT) pill("link", "nothing heard", "warn");
}, 1000);
listen();
