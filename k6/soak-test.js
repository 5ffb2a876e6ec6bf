// Soak: moderate load for long. Nothing may get slower, fail now and then, or grow.
//
//   k6 run k6/soak-test.js                    half an hour
//   k6 run --duration 8h k6/soak-test.js      as long as you like
//
// BASE_URL, ADMIN_URL, VUS (20), DURATION (30m), WARM_UP (30s: until the memory is looked at for the first time),
// GROWTH (1.2: how much more memory there may be at the end)
import http from 'k6/http';
import { check, sleep } from 'k6';
import { BASE_URL, PROMISE, metric, number, seconds } from './lib/gogate.js';

const VUS = number('VUS', 20);
const WARM_UP = seconds(__ENV.WARM_UP || '30s');
const GROWTH = number('GROWTH', 1.2);
const MEMORY = 'gogate_process_resident_memory_bytes';

export const options = {
  // No scenarios: --duration and --vus on the command line stand for these.
  vus: VUS,
  duration: __ENV.DURATION || '30m',
  setupTimeout: `${WARM_UP + 60}s`,
  thresholds: { ...PROMISE, http_req_failed: ['rate<0.001'], checks: ['rate==1'] },
};

export function setup() {
  const until = Date.now() + WARM_UP * 1000;
  while (Date.now() < until) http.batch(new Array(VUS).fill(['GET', `${BASE_URL}/`]));
  return { memory: metric(MEMORY), errors: metric('gogate_internal_errors_total') };
}

export default function () {
  check(http.get(`${BASE_URL}/`), { 'served': (r) => r.status === 200 });
  check(http.post(`${BASE_URL}/echo`, 'x'.repeat(1000)), { 'echoed': (r) => r.body && r.body.length === 1000 });
  sleep(0.1 + Math.random() * 0.1);
}

export function teardown(before) {
  const memory = metric(MEMORY);
  console.log(`resident memory of all processes: ${Math.round(before.memory / 1e6)} MB, then ${Math.round(memory / 1e6)} MB`);
  check(null, {
    'memory has not grown': () => memory <= before.memory * GROWTH,
    'no internal error': () => metric('gogate_internal_errors_total') === before.errors,
    'no worker died': () => metric('gogate_worker_restarts_total') === 0,
  });
}
