// Circuit breaker: opens after failures, answers at once while it is open, closes when the backends are well again.
//
//   k6 run k6/circuit-breaker-test.js   against circuitBreaker: {enabled: true, failureThreshold: 5, timeout: 30s}
//                                       and the demo's backends (they answer /status/503 with 503)
//
// BASE_URL, ADMIN_URL, FAIL_PATH (/status/503), GOOD_PATH (/), POOL (default), BREAKER_TIMEOUT (30s)
import http from 'k6/http';
import { check, sleep } from 'k6';
import { ADMIN_URL, BASE_URL, seconds } from './lib/gogate.js';

const FAIL = `${BASE_URL}${__ENV.FAIL_PATH || '/status/503'}`;
const GOOD = `${BASE_URL}${__ENV.GOOD_PATH || '/'}`;
const POOL = __ENV.POOL || 'default';
const TIMEOUT = seconds(__ENV.BREAKER_TIMEOUT || '30s');

export const options = {
  scenarios: { one_by_one: { executor: 'shared-iterations', vus: 1, iterations: 1, maxDuration: `${TIMEOUT * 3 + 60}s` } },
  thresholds: {
    checks: ['rate==1'],
    // An open breaker answers without asking anybody.
    'http_req_duration{name:open}': ['max<500'],
  },
};

// The breakers of the pool's backends.
function breakers() {
  const answer = http.get(`${ADMIN_URL}/backends`, { tags: { name: 'admin' } });
  if (answer.status !== 200) throw new Error(`${ADMIN_URL}/backends answers ${answer.status}: is ADMIN_URL right?`);
  const found = answer.json('backends').filter((one) => one.pool === POOL);
  if (!found.length) throw new Error(`the pool ${POOL} has no backends: set POOL`);
  return found.map((one) => one.breaker);
}

const all = (state) => breakers().every((one) => one === state);

// Do something until a condition holds, at most so many times.
function until(condition, step, most) {
  for (let i = 0; i < most; i += 1) {
    if (condition()) return true;
    step();
  }
  return condition();
}

export default function () {
  check(null, { 'closed at first': () => all('closed') });

  const opened = until(() => all('open'), () => http.get(FAIL, { tags: { name: 'failing' } }), 200);
  check(null, { 'opens after failures': () => opened });

  for (let i = 0; i < 20; i += 1) {
    const answer = http.get(GOOD, { tags: { name: 'open' } });
    check(answer, {
      'open: answered by gogate, 503': (r) => r.status === 503 && !r.headers['X-Instance'],
      'open: a problem, not a page': (r) => (r.headers['Content-Type'] || '').startsWith('application/problem+json'),
    });
  }

  sleep(TIMEOUT);
  const closed = until(
    () => all('closed'),
    () => {
      http.get(GOOD, { tags: { name: 'trial' } });
      sleep(0.05);
    },
    1200,
  );
  check(null, { 'closes when trials succeed': () => closed });
  check(http.get(GOOD), { 'serves again': (r) => r.status === 200 });
}
