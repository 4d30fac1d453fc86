// Both ends of the credit protocol for the conformance suite, in another language. They share no code with weir. The
// protocol is in session.js. Usage: node end.js serve [FAULT], which prints its port, or node end.js drive HOST:PORT [FAULT]
import { setTimeout as sleep } from 'node:timers/promises';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';
import { Session, canceled, completed, count, goingAway, late, tooLarge, violation } from './session.js';

const includeDirs = ['../proto', '../../proto'].map((dir) => `${import.meta.dirname}/${dir}`);
const definition = loader.loadSync('weir/conformance/v1/conformance.proto', { includeDirs, longs: String, keepCase: true, enums: String });
const { weir } = grpc.loadPackageDefinition(definition);
const suite = definition['weir.conformance.v1.ConformanceService'];
const [elementBytes, elementOf] = [suite.Run.requestSerialize, suite.Run.requestDeserialize];
const scriptOf = (bytes) => suite.Next.responseDeserialize(Buffer.concat([header(1, bytes.length), bytes])).script; // as a field of NextResponse
const scriptBytes = (script) => suite.Next.responseSerialize({ script }).subarray(header(1, bytesOf(script)).length);
const bytesOf = (script) => { // the size of an encoded script
  const all = suite.Next.responseSerialize({ script }).length;
  for (let size = all; size >= 0; size--) if (header(1, size).length + size === all) return size;
  return 0;
};
function header(field, length) {
  const bytes = [field << 3 | 2];
  for (; length >= 128; length >>>= 7) bytes.push(length & 127 | 128);
  return Buffer.from([...bytes, length]);
}

// Embedded Control, and Frames: unwrap returns control, elements and batch of a message, and wrap is its reverse.
const embedded = {
  unwrap({ credit, ...element }) { return { control: credit, elements: credit && !credit.with_data ? [] : [element], script: element.script }; },
  wrap({ control, element, script }) {
    return script ? { script, credit: { ...control, with_data: true } } : control ? { credit: control } : element;
  },
};
const parse = (bytes) => ({ ...elementOf(bytes), size: bytes.length });
const framed = {
  unwrap({ control, data, batch, piggyback }, first) {
    if (first && data && piggyback?.open) return { control: piggyback, elements: [], script: data.length > 0 ? scriptOf(data) : undefined };
    const elements = (batch?.data ?? (data ? [data] : [])).map(parse);
    return { control: control ?? piggyback, elements, batch: batch !== undefined && batch !== null && elements.length > 0 };
  },
  wrap({ control, element, script }) {
    return script ? { data: scriptBytes(script), piggyback: control } : control ? { control } : { data: elementBytes(element) };
  },
};

const endings = { ENDING_ERROR: 'error', ENDING_GOING_AWAY: 'away', ENDING_NOTHING: 'nothing', ENDING_LEAVE: 'leave' };
const orDefault = (script) => (script?.send || script?.receive ? script : { ...script, send: { ending: 'ENDING_NOTHING' }, receive: { window: 16 } });

// play plays the script as an application does, and returns its report.
async function play(session) {
  const { script } = session;
  const report = { id: script.id, sent: 0, too_large: 0, given_up: 0, received: 0, out_of_order: 0, burned: 0 };
  const out = script.send ?? {}, into = script.receive ?? {};
  const pause = async (ms) => { // ends early with the stream
    for (const end = performance.now() + (ms ?? 0); performance.now() < end && !session.over;) await session.wait(end - performance.now());
  };
  let next = 0;
  async function sendOne(n) {
    if (n === Number(out.oversize_before ?? 0)) {
      const why = await session.put({ number: n, payload: Buffer.alloc(out.oversize_bytes) });
      if (why !== tooLarge) return why ?? violation('MESSAGE_TOO_LARGE');
      report.too_large++;
    }
    for (;;) {
      const why = await session.put({ number: n, payload: Buffer.alloc(out.payload_bytes ?? 0) }, out.give_up_ms);
      if (why !== late) {
        report.sent += why ? 0 : 1;
        return why;
      }
      report.given_up++;
    }
  }
  async function sendSome() {
    while (++next <= Number(out.count ?? 0)) {
      const n = next;
      await pause(out.pace_ms);
      const why = await sendOne(n);
      if (why) return why;
      if (n % 64 === 0) await sleep(0); // others have to do, too
    }
    return undefined;
  }
  async function endSending() {
    switch (endings[out.ending]) {
      case 'error': return session.terminate({ error: { code: out.error_code, message: out.error_message } });
      case 'away': return session.terminate({ complete: { going_away: true } });
      case 'leave': return completed;
      case 'nothing':
        while (!session.outEnd && !(session.deserted && session.granted <= session.sent)) await session.wait();
        return session.outEnd ?? canceled;
      default: return session.terminate({ complete: {} });
    }
  }
  async function sendAll() {
    const ends = await Promise.all(Array.from({ length: Math.max(1, out.senders ?? 0) }, sendSome));
    return ends.find(Boolean) ?? endSending();
  }
  async function receiveOne() {
    const { element, end } = await session.take();
    if (end) return end;
    if (Number(element.number ?? 0) !== ++report.received) report.out_of_order ||= Number(element.number ?? 0);
    return undefined;
  }
  const ask = () => (into.window ? [] : into.requests ?? []).forEach((n) => session.request(n));
  const at = (field) => into[field] !== undefined && Number(into[field]) === report.received;
  async function rounds() {
    for (let round = 0; round < into.rounds; round++) {
      ask();
      for (let n = 0; n < Number(into.drain_after ?? 0); n++) {
        const end = await receiveOne();
        if (end) return end;
      }
      await session.drain();
      if (session.inEnd) return session.inEnd;
    }
    session.cancel();
    return canceled;
  }
  async function receiveAll() {
    if (into.rounds) return rounds();
    ask();
    for (;;) {
      if (at('leave_after')) return completed;
      if (at('cancel_after')) {
        session.cancel();
        return canceled;
      }
      while (at('take') && !session.over) await session.wait();
      if (at('drain_after') && !session.inEnd) await session.drain();
      await pause(into.pace_ms);
      const end = await receiveOne();
      if (end) return end;
      if (report.received % 64 === 0) await sleep(0);
    }
  }
  async function lockstep() {
    for (let n = 1; n <= Number(out.count ?? 0); n++) {
      const end = await sendOne(n) ?? await receiveOne();
      if (end) return [end, end];
    }
    const sending = session.terminate({ complete: {} });
    let end;
    while (!end) end = await receiveOne();
    return [await sending, end];
  }
  const [sending, receiving] = script.lockstep
    ? await lockstep() : await Promise.all([script.send && sendAll(), script.receive && receiveAll()]);
  await pause(script.linger_ms);
  report.burned = session.burned === Infinity ? '9223372036854775807' : session.burned;
  const end = (e) => e && { ...e, kind: e.kind, ends: 1 };
  return { ...report, sending: end(sending), receiving: end(receiving) };
}

// details returns metadata with a violation as a google.rpc.Status with an ErrorInfo.
function details({ code, reason, message }) {
  const field = (n, bytes) => Buffer.concat([header(n, Buffer.byteLength(bytes)), Buffer.from(bytes)]);
  const info = Buffer.concat([field(1, reason), field(2, 'weir')]);
  const any = Buffer.concat([field(1, 'type.googleapis.com/google.rpc.ErrorInfo'), field(2, info)]);
  const metadata = new grpc.Metadata();
  metadata.set('grpc-status-details-bin', Buffer.concat([Buffer.from([8, code]), field(2, message), field(3, any)]));
  return metadata;
}

// hear gives a message to a session. The bytes of an element in a Frame may be no message.
function hear(session, form, message) {
  try {
    if (message instanceof Error) throw message;
    const parts = form.unwrap(message);
    return session.hear(parts);
  } catch (error) {
    return { kind: 4, code: 13, reason: '', message: String(error) };
  }
}

// tolerant returns the method with a message that cannot be decoded as an Error, since grpc-js tells a server's
// application nothing but that the call was canceled.
function tolerant(method) {
  const requestDeserialize = (bytes) => {
    try {
      return method.requestDeserialize(bytes);
    } catch (error) {
      return error;
    }
  };
  return { ...method, requestDeserialize };
}

const reports = new Map(); // of a server: a promise and its resolve for each session
function reportOf(id) {
  if (!reports.has(id)) {
    let settle;
    const promise = new Promise((resolve) => { settle = resolve; });
    reports.set(id, { promise, settle });
  }
  return reports.get(id);
}

const serving = (form, fault) => (call) => {
  let session;
  let ended = false;
  const finish = (end) => {
    if (ended) return;
    ended = true;
    session?.timers.forEach(clearTimeout);
    if (end?.kind !== 4) call.end();
    else call.emit('error', { code: end.code, details: end.message, ...(end.reason && { metadata: details(end) }) });
  };
  const refuse = (end, id) => {
    if (id) reportOf(id).settle({ id, sending: { ...end, ends: 1 }, receiving: { ...end, ends: 1 } });
    finish(end);
  };
  const patience = setTimeout(() => session ?? refuse(violation('HANDSHAKE_TIMEOUT')), 10000);
  const begin = async (message) => {
    const { control, script } = message instanceof Error ? {} : form.unwrap(message, true);
    const io = { write: (m) => ended || call.write(form.wrap(m)), half() {}, fail() {} };
    session = new Session({ server: true, framed: form === framed, script: orDefault(script), fault, io });
    const wrong = session.meet(control);
    if (wrong) {
      session.end(wrong);
      refuse(wrong, script?.id);
      return;
    }
    const metadata = new grpc.Metadata();
    metadata.set('weir-credit-version', '1');
    call.sendMetadata(metadata);
    session.write({ control: session.greet() });
    session.opened = true;
    const report = await play(session);
    for (const end = performance.now() + 1000; session.queue.length > 0 && !session.over && performance.now() < end;) await session.wait(100);
    const over = session.over;
    session.end(over ?? completed);
    if (report.id) reportOf(report.id).settle(report);
    finish([over, report.sending, report.receiving].find((e) => e?.kind === 4));
  };
  call.on('data', (message) => {
    clearTimeout(patience);
    if (!session) {
      begin(message);
      return;
    }
    if (session.over) return;
    const wrong = hear(session, form, message);
    if (wrong) session.end(wrong);
  }).on('drain', () => session?.drained()).on('end', () => setTimeout(() => { // grpc-js says so before it knows of a reset
    if (call.cancelled) return;
    if (session) session.left();
    else refuse(violation('UNEXPECTED_FRAME'));
  }, 20)).on('cancelled', () => {
    clearTimeout(patience);
    session?.end({ kind: 4, code: 1, reason: '', message: 'the call was canceled' });
  }).on('error', (error) => { session?.end({ kind: 4, code: error.code ?? 13, reason: '', message: String(error.details ?? error) }); });
};

function serve(fault) {
  const server = new grpc.Server({ 'grpc.max_receive_message_length': 64 << 20 });
  const { service } = weir.conformance.v1.ConformanceService;
  server.addService({ ...service, Run: tolerant(service.Run) }, {
    Run: serving(embedded, fault),
    Outcome({ request: { id } }, done) {
      reportOf(id).promise.then((report) => { reports.delete(id); done(null, { report }); });
    },
  });
  server.addService({ Channel: tolerant(weir.credit.v1.CreditStream.service.Channel) }, { Channel: serving(framed, fault) });
  server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => console.log(error ?? port));
  process.stdin.on('end', () => process.exit()).resume();
}

// reasonIn returns the reason of an ErrorInfo of the domain weir in a status.
const reasonIn = (metadata) => (/[A-Z_]+(?=\x12\x04weir)/.exec(metadata.get('grpc-status-details-bin').join()) ?? [''])[0];

async function session(client, form, script, fault) {
  const call = form === framed ? client.frames.Channel() : client.suite.Run();
  let s;
  let failed = false;
  const io = {
    write: (m) => call.write(form.wrap(m)),
    half: () => call.end(),
    fail(why) { // Node half-closes a stream before it resets it, and without a terminal that would mean Complete
      failed = true;
      const error = { code: why.code, message: why.message, total: s.sent };
      const cut = () => setTimeout(() => call.cancel(), 10);
      if (s.send && !s.terminal && !s.halving && !s.full) call.write(form.wrap({ control: { error } }), cut);
      else cut();
    },
  };
  s = new Session({ server: false, framed: form === framed, script, fault, io });
  const over = new Promise((resolve) => { call.on('status', resolve); });
  const patience = setTimeout(() => s.fail(violation('HANDSHAKE_TIMEOUT')), script.handshake_timeout_ms || 10000);
  call.on('data', (message) => {
    clearTimeout(patience);
    if (s.over) return;
    const wrong = s.opened ? hear(s, form, message) : s.meet(form.unwrap(message).control);
    s.opened = true;
    s.changed();
    if (wrong) s.fail(wrong);
  }).on('drain', () => s.drained()).on('error', () => {}).on('status', ({ code, details: message, metadata }) => {
    clearTimeout(patience);
    if (s.over) return;
    if (code === 0 && !s.opened) s.end(violation('UNEXPECTED_FRAME'));
    else s.left(code === 0 ? completed : { kind: 4, code, reason: reasonIn(metadata), message }, (key) => metadata.get(key));
  });
  s.write({ ...{ control: s.greet() }, script });
  while (!s.opened && !s.over) await s.wait();
  const report = await play(s);
  for (const end = performance.now() + 1000; s.queue.length > 0 && !s.over && performance.now() < end;) await s.wait(100);
  const polite = performance.now() + 1000;
  while (!s.over && performance.now() < polite) await s.wait(100);
  if (!failed) call.cancel();
  await over;
  s.end(completed);
  return report;
}

async function drive(address, fault) {
  const options = { 'grpc.max_receive_message_length': 64 << 20 };
  const credentials = grpc.credentials.createInsecure();
  const client = {
    suite: new weir.conformance.v1.ConformanceService(address, credentials, options),
    frames: new weir.credit.v1.CreditStream(address, credentials, options),
  };
  const next = (previous) => new Promise((resolve, reject) => {
    client.suite.Next({ previous }, (error, response) => (error ? reject(error) : resolve(response)));
  });
  await new Promise((resolve, reject) => {
    client.suite.waitForReady(Date.now() + 60000, (error) => (error ? reject(error) : resolve()));
  });
  const loop = async () => {
    for (let work = await next(); !work.done; work = await next(await session(client, work.framed ? framed : embedded, work.script, fault)));
  };
  await Promise.all([loop(), loop(), loop(), loop()]);
  client.suite.close();
  client.frames.close();
}

const [mode, argument, fault] = process.argv.slice(2);
if (mode === 'serve') serve(argument);
else drive(argument, fault).catch((error) => { console.error(error); process.exitCode = 1; });
