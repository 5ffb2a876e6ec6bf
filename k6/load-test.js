// Load: a given rate of requests, whatever the answers take (an open model: a slow gateway does not slow the clients).
//
//   k6 run k6/load-test.js                          100 requests a second for a minute
//   k6 run --env SCENARIO=ramp k6/load-test.js      up to RATE, and down again
//   k6 run --env SCENARIO=spike k6/load-test.js     a tenth of RATE, then all at once, then a tenth
//
// BASE_URL, URL_PATH (/), RATE (100), DURATION (1m)
import http from 'k6/http';
import { check } from 'k6';
import { BASE_URL, PROMISE, number, seconds } from './lib/gogate.js';

const RATE = number('RATE', 100);
const DURATION = seconds(__ENV.DURATION || '1m');
const SCENARIO = __ENV.SCENARIO || 'steady';
const URL = `${BASE_URL}${__ENV.URL_PATH || '/'}`;

// Enough clients for answers of a second; fewer would make the test wait for the gateway.
const clients = { preAllocatedVUs: Math.max(10, Math.ceil(RATE / 4)), maxVUs: Math.max(20, RATE * 2) };
const part = (share) => `${Math.max(1, Math.round(DURATION * share * 1000))}ms`;
const stages = (start, ...list) => ({
  executor: 'ramping-arrival-rate',
  startRate: start,
  timeUnit: '1s',
  stages: list.map(([target, share]) => ({ target, duration: part(share) })),
  ...clients,
});
const low = Math.max(1, Math.round(RATE / 10));
const SCENARIOS = {
  steady: { executor: 'constant-arrival-rate', rate: RATE, timeUnit: '1s', duration: part(1), ...clients },
  ramp: stages(low, [RATE, 0.4], [RATE, 0.3], [low, 0.3]),
  spike: stages(low, [low, 0.3], [RATE, 0.05], [RATE, 0.3], [low, 0.05], [low, 0.3]),
};
if (!SCENARIOS[SCENARIO]) throw new Error(`SCENARIO=${SCENARIO}: one of ${Object.keys(SCENARIOS)} was expected`);

export const options = {
  scenarios: { [SCENARIO]: SCENARIOS[SCENARIO] },
  thresholds: {
    ...PROMISE,
    checks: ['rate>0.99'],
    // Requests that could not even be sent, because all clients were waiting.
    dropped_iterations: [`count<${Math.max(1, RATE * DURATION * 0.01)}`],
  },
};

export default function () {
  const answer = http.get(URL);
  check(answer, {
    'answered 2xx': (r) => r.status >= 200 && r.status < 300,
    'has a request id': (r) => !!r.headers['X-Request-Id'],
  });
}
