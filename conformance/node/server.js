// A server of the demo's StreamService by hand, with nothing but gRPC and the proto files, for clients of weir's. It
// prints its port. Subscribe sends as many elements as the query says, Upload takes elements and cancels at number 999,
// and Convert sends every element back. Usage: node server.js
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const includeDirs = ['proto', 'examples/proto'].map((dir) => `${import.meta.dirname}/../../${dir}`);
const options = { includeDirs, longs: String, keepCase: true, defaults: true, oneofs: true };
const { weir } = grpc.loadPackageDefinition(loader.loadSync('weir/demo/v1/stream.proto', options));

const window = 8; // a receiver asks for half of it when half of it is consumed
const features = ['FEATURE_CONSUMED', 'FEATURE_DRAIN', 'FEATURE_HEARTBEAT'];

const serve = (sends, receives) => (call) => {
  let [opened, over, ended, last] = [false, false, !sends, !receives]; // ended: our direction; last: the peer's
  let [credit, sent, left, received] = [0n, 0n, 0n, 0n];
  const back = []; // elements that Convert has to send
  const say = (credit) => call.write({ credit });
  const stop = (error) => {
    over = true;
    if (error) call.emit('error', error); // grpc-js makes the status of it
    else call.end();
  };
  const send = () => {
    for (; !ended && credit > 0n && (back.length > 0 || left > 0n); credit--, sent++) {
      call.write({ number: back.length > 0 ? back.shift() : String(sent + 1n) });
      if (left > 0n) left--;
    }
    if (!ended && back.length === 0 && left === 0n && last) {
      say({ complete: { total: String(sent) } });
      ended = true;
    }
  };
  const open = ({ credit: { open, with_data }, count }) => {
    opened = true;
    say({ open: { features, will_send: sends, will_receive: receives, initial: receives ? { n: window } : null } });
    left = with_data ? BigInt(count ?? 0) : 0n;
    credit = BigInt(open.initial?.n ?? 0);
  };
  const steer = ({ request, cancel, complete, error, heartbeat }) => {
    if (request) credit += BigInt(request.n);
    if (request?.drain && !ended) {
      say({ drained: { sent: String(sent), burned: String(credit) } });
      credit = 0n;
    }
    if (cancel) ended = true;
    if (heartbeat?.echo) say({ heartbeat: { sent: String(sent), credit: String(credit) } });
    if ((complete || error) && received > 0n) say({ request: { n: 0, consumed: String(received) } });
    if (complete && BigInt(complete.total) !== received) stop({ code: grpc.status.DATA_LOSS });
    if (error) stop({ code: error.code, details: error.message });
    last = last || Boolean(complete);
  };
  const take = ({ number }) => {
    received++;
    if (sends) back.push(number);
    if (number === '999') say({ cancel: { reason: 'enough' } });
    if (received % BigInt(window / 2) === 0n) say({ request: { n: window / 2, consumed: String(received) } });
  };
  call.on('data', (message) => {
    if (over) return;
    if (!opened) open(message);
    else if (message.credit) steer(message.credit);
    else take(message);
    if (!over) send();
  }).on('end', () => { // the client's half-close
    last = true;
    if (!over) send();
    if (!over) stop();
  }).on('cancelled', () => { over = true; }).on('error', () => { over = true; });
};

const server = new grpc.Server();
server.addService(weir.demo.v1.StreamService.service, { Subscribe: serve(true, false), Upload: serve(false, true), Convert: serve(true, true) });
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => console.log(error ?? port));
process.stdin.on('end', () => process.exit()).resume();
