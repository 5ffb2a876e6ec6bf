// TCP: k6 has no raw TCP, so this is HTTP over gogate's TCP listener, which relays bytes and does not know. Every
// request is a connection of its own; what comes back must be what was sent, to the byte; gogate must have counted
// every connection as ended well.
//
//   k6 run k6/tcp-test.js               against a TCP route to the demo's backends (they send /echo back)
//
// TCP_URL (http://localhost:8080), ADMIN_URL, VUS (20), DURATION (30s), SIZE (20000 bytes)
import http from 'k6/http';
import { check, sleep } from 'k6';
import crypto from 'k6/crypto';
import { Counter } from 'k6/metrics';
import { PROMISE, TCP_URL, metric, number, scrape } from './lib/gogate.js';

const SIZE = number('SIZE', 20000);
const sent = new Counter('tcp_connections');

export const options = {
  vus: number('VUS', 20),
  duration: __ENV.DURATION || '30s',
  noConnectionReuse: true,
  thresholds: { ...PROMISE, checks: ['rate==1'], http_req_connecting: ['p(95)<100'], tcp_connections: ['count>0'] },
};

const ended = (metrics) => ({
  ok: metric('gogate_tcp_connections_total', { result: 'ok' }, metrics),
  all: metric('gogate_tcp_connections_total', {}, metrics),
});

export function setup() {
  return ended(scrape());
}

export default function () {
  const body = crypto.randomBytes(SIZE);
  const answer = http.post(`${TCP_URL}/echo`, body, {
    headers: { 'Content-Type': 'application/octet-stream' },
    responseType: 'binary',
  });
  sent.add(1);
  check(answer, {
    'echoed': (r) => r.status === 200,
    'every byte is the same': (r) => r.body && crypto.sha256(r.body, 'hex') === crypto.sha256(body, 'hex'),
  });
}

export function teardown(before) {
  // Workers report a few times a second, and the last connections have just ended.
  let now = before;
  for (let i = 0; i < 50; i += 1) {
    const metrics = scrape();
    now = ended(metrics);
    if (now.all > before.all && metric('gogate_connections_active', {}, metrics) <= 1) break;
    sleep(0.1);
  }
  const [ok, all] = [now.ok - before.ok, now.all - before.all];
  console.log(`gogate relayed ${all} connections, ${ok} ended well`);
  check(null, { 'gogate counted connections, all of them ended well': () => all > 0 && ok === all });
}
