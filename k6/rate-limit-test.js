// Rate limit: twice as many requests as the limit lets through. Who is over it gets 429 with Retry-After, nobody
// anything else, and the limit is one for the whole gateway: not one per worker.
//
//   k6 run k6/rate-limit-test.js        against server.rateLimit: {enabled: true, rate: 100, burst: 50}
//
// BASE_URL, LIMIT (100) and BURST (50) as configured, RATE (200), DURATION (30s)
import http from 'k6/http';
import { check } from 'k6';
import { Counter, Rate } from 'k6/metrics';
import { BASE_URL, number, seconds } from './lib/gogate.js';

const LIMIT = number('LIMIT', 100);
const BURST = number('BURST', 50);
const RATE = number('RATE', 200);
const DURATION = seconds(__ENV.DURATION || '30s');
const fair = LIMIT * DURATION + BURST;
if (RATE * DURATION < fair * 1.2) throw new Error('RATE and DURATION are too small to reach the limit');

const accepted = new Counter('accepted');
const limited = new Counter('limited');
const polite = new Rate('limited_with_retry_after');

http.setResponseCallback(http.expectedStatuses(200, 429));

export const options = {
  scenarios: {
    over_the_limit: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: `${Math.round(DURATION * 1000)}ms`,
      preAllocatedVUs: Math.ceil(RATE / 4),
      maxVUs: RATE * 2,
    },
  },
  thresholds: {
    // A second more: k6 ends its last requests after DURATION. Less than 90 % would be a limit that is too strict.
    accepted: [`count<=${fair + LIMIT}`, `count>=${Math.floor(fair * 0.9)}`],
    limited: ['count>0'],
    limited_with_retry_after: ['rate==1'],
    http_req_failed: ['rate==0'],
    http_req_duration: ['p(95)<500'],
  },
};

export default function () {
  const answer = http.get(`${BASE_URL}/`);
  if (answer.status === 200) accepted.add(1);
  if (answer.status === 429) {
    limited.add(1);
    polite.add(Number(answer.headers['Retry-After']) >= 1);
  }
  check(answer, { 'served or limited': (r) => r.status === 200 || r.status === 429 });
}
