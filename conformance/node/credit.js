// The credit protocol by hand, with nothing but gRPC and the proto files: a receiver that tries a sender of weir's, and
// a sender that breaks the bounds of a receiver with a window of 4. Usage: node credit.js HOST:PORT
import { setTimeout as sleep } from 'node:timers/promises';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const includeDirs = ['proto', 'examples/proto'].map((dir) => `${import.meta.dirname}/../../${dir}`);
const options = { includeDirs, longs: String, keepCase: true, defaults: true, oneofs: true };
const { weir } = grpc.loadPackageDefinition(loader.loadSync('weir/demo/v1/stream.proto', options));
const client = new weir.demo.v1.StreamService(process.argv[2], grpc.credentials.createInsecure());

const unbounded = '9223372036854775807'; // 2^63-1, which is no number of JavaScript's
const request = (n) => ({ credit: { request: { n } } });
const open = (count, initial) => ({ count, credit: { open: { will_receive: true, initial }, with_data: count > 0 } });
const refuses = (n) => ['Subscribe', [[open(9)], 'open'], [[request(n)], 'open, INVALID_ARGUMENT INVALID_DEMAND']];
const flows = (...said) => ['Subscribe', [[open(20000), ...said], 'open, 1..20000, complete 20000, OK']];
const rules = [ // number, name, streams: a method, and turns: what is said, and all that then has to have come
  [1, 'nothing before credit', ['Subscribe', [[open(9)], 'open']]],
  [2, 'elements <= sum of n', ['Subscribe', [[open(9), request(1)], 'open, 1..1'], [[request(3)], 'open, 1..4']]],
  [3, 'exactly n if available', ['Subscribe', [[open(9, { n: 5 })], 'open, 1..5'], [[request(3)], 'open, 1..8']]],
  [4, 'fewer + Complete', ['Subscribe', [[open(9), request(10)], 'open, 1..9, complete 9, OK']]],
  [5, 'an empty source completes without demand', ['Subscribe', [[open(0)], 'open, complete 0, OK']]],
  [16, 'n = 0', refuses(0)],
  [17, 'n = -1, minimum', refuses(-1), refuses('-9223372036854775808')],
  [18, 'Open.initial absent = none', ['Subscribe', [[open(9)], 'open'], [[request(2)], 'open, 1..2']]],
  [19, 'unbounded flows', flows(request(unbounded))],
  [20, 'overflow saturates', flows(request(unbounded), request(unbounded))],
  [34, 'beyond credit', ['Upload', [[{ credit: { open: { will_send: true } } }], 'open 4'], // it asks for 4
    [[1, 2, 3, 4, 5].map((number) => ({ number })), 'open 4, RESOURCE_EXHAUSTED CREDIT_EXCEEDED']]],
];

async function run([method, ...turns]) { // one stream; returns what went wrong, if anything did
  const call = client[method]({ deadline: Date.now() + 10000 });
  let [came, elements, over, wrong] = [[], 0, false, '']; // 1..5 in came are the elements 1 to 5
  call.on('data', ({ number, credit }) => {
    if (credit) came.push(`${credit.kind} ${credit.open?.initial?.n ?? credit.complete?.total ?? ''}`.trim());
    if (credit && !credit.with_data) return;
    if (came.at(-1) === `1..${elements}`) came.pop();
    came.push(Number(number) === ++elements ? `1..${elements}` : `${number} out of order`);
  }).on('status', ({ code, metadata }) => { // the reason is that of an ErrorInfo of the domain weir
    const reason = /[A-Z_]+(?=\x12\x04weir)/.exec(metadata.get('grpc-status-details-bin').join()) ?? [];
    over = came.push([grpc.status[code], ...reason].join(' '));
  }).on('error', () => {}); // the status again
  for (const [said, want] of turns) {
    said.forEach((message) => call.write(message));
    while (came.join(', ') !== want && !over) await sleep(5);
    await sleep(100); // for what must not come
    if (came.join(', ') !== want) wrong += `: got "${came.join(', ')}" want "${want}"`;
  }
  call.cancel();
  return wrong;
}

for (const [number, name, ...streams] of rules) {
  const wrong = (await Promise.all(streams.map(run))).join('');
  console.log(`${wrong ? 'FAIL' : 'ok'} ${number} ${name}${wrong}`);
  if (wrong) process.exitCode = 1;
}
client.close();
