// What the scripts share: where gogate is, the promises, and its own metrics.
import http from 'k6/http';

export const BASE_URL = (__ENV.BASE_URL || 'http://localhost:8081').replace(/\/$/, '');
export const TCP_URL = (__ENV.TCP_URL || 'http://localhost:8080').replace(/\/$/, '');
export const ADMIN_URL = (__ENV.ADMIN_URL || 'http://localhost:9090').replace(/\/$/, '');

// The promise of the README: 95 % within 500 ms, 99 % within a second, less than 1 % failed.
export const PROMISE = {
  http_req_duration: ['p(95)<500', 'p(99)<1000'],
  http_req_failed: ['rate<0.01'],
};

// A number from the environment; anything else is an error, not a default.
export function number(name, fallback) {
  const given = __ENV[name];
  if (given === undefined || given === '') return fallback;
  const value = Number(given);
  if (!Number.isFinite(value) || value < 0) throw new Error(`${name}=${given}: a number was expected`);
  return value;
}

// Seconds of a duration such as 30s, 2m, 1h.
export function seconds(text) {
  const found = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
  if (!found) throw new Error(`${text}: a duration such as 30s was expected`);
  return Number(found[1]) * { ms: 0.001, s: 1, m: 60, h: 3600 }[found[2]];
}

// GET /metrics: what several figures that belong together are taken from.
export function scrape() {
  const answer = http.get(`${ADMIN_URL}/metrics`, { tags: { name: 'metrics' } });
  if (answer.status !== 200) throw new Error(`${ADMIN_URL}/metrics answers ${answer.status}: is ADMIN_URL right?`);
  return answer.body;
}

// The sum of a metric's samples that carry all these labels, now or in what scrape() gave.
export function metric(name, labels = {}, metrics = scrape()) {
  const wanted = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
  let sum = 0;
  for (const line of metrics.split('\n')) {
    if (!line.startsWith(name)) continue;
    const found = /^(\w+)(\{.*\})? (\S+)$/.exec(line);
    if (found && found[1] === name && wanted.every((label) => (found[2] || '').includes(label))) sum += Number(found[3]);
  }
  return sum;
}
