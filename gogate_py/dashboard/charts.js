// Two charts of the last quarter of an hour (uPlot).

const KEPT = 900;
let charts = [];
let columns = [];
const data = [];

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const clock = (at) => new Date(at * 1000).toLocaleTimeString([], {hour12: false});

function options(width, series) {
  const axis = {stroke: color("--quiet"), grid: {stroke: color("--line"), width: 1}, ticks: {show: false}, font: "11px system-ui"};
  return {
    width, height: 160, series: [{label: "at", value: (u, at) => at === null ? "–" : clock(at)}, ...series], cursor: {points: {size: 6}}, legend: {live: true},
    scales: {y: {range: (u, low, high) => [0, Math.max(high || 0, 1) * 1.1]}},
    axes: [{...axis, space: 80, values: (u, moments) => moments.map(clock)}, {...axis, size: 52}],
  };
}

const line = (label, name, fill) => ({label, stroke: color(name), width: 1.5, fill: fill && `${color(name)}22`, points: {show: false}});

function draw() {
  for (const chart of charts) chart.destroy();
  const at = (name) => data[columns.indexOf(name)];
  const make = (id, names, series) => {
    const where = document.getElementById(id);
    return new uPlot(options(where.clientWidth, series), [at("at"), ...names.map(at)], where);
  };
  charts = [
    make("chart-rate", ["requests", "failed"], [line("requests/s", "--accent", true), line("failed/s", "--bad", true)]),
    make("chart-latency", ["p50_ms", "p95_ms", "p99_ms"], [line("p50", "--good"), line("p95", "--accent"), line("p99", "--warn")]),
  ];
  charts[0].names = ["requests", "failed"];
  charts[1].names = ["p50_ms", "p95_ms", "p99_ms"];
}

export function begin(history) {
  columns = history.columns;
  data.length = 0;
  columns.forEach((_, i) => data.push(history.lines.map((one) => one[i])));
  draw();
}

export function add(total) {
  if (!columns.length) return;
  columns.forEach((name, i) => {
    data[i].push(total[name]);
    if (data[i].length > KEPT) data[i].shift();
  });
  if (document.hidden) return;
  const at = (name) => data[columns.indexOf(name)];
  for (const chart of charts) chart.setData([at("at"), ...chart.names.map(at)]);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => columns.length && draw());
new ResizeObserver(() => {
  for (const chart of charts) {
    const width = chart.root.parentNode.clientWidth;
    if (width && Math.abs(width - chart.width) > 1) chart.setSize({width, height: 160});
  }
}).observe(document.querySelector(".charts"));
