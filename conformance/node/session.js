// One end of a session of the credit protocol, written from credit.proto alone. It knows neither gRPC's transport nor an
// application. The caller hands it messages and the end of the stream, and gives it functions that write and end.
export const unbounded = '9223372036854775807'; // 2^63-1, which a number of JavaScript cannot hold
export const features = ['FEATURE_CONSUMED', 'FEATURE_DRAIN', 'FEATURE_HEARTBEAT', 'FEATURE_BATCH', 'FEATURE_UNFINISHED'];

const codes = { // of violations
  INVALID_DEMAND: 3, INVALID_CONSUMED: 3, HANDSHAKE_TIMEOUT: 4, FIRST_REQUEST_TIMEOUT: 4, CREDIT_STARVED: 4,
  DEMAND_TOO_LARGE: 8, CREDIT_EXCEEDED: 8, BYTES_EXCEEDED: 8, MESSAGE_TOO_LARGE: 8, CONTROL_FLOOD: 8,
  UNEXPECTED_FRAME: 9, VERSION: 9, AFTER_TERMINAL: 9, PEER_STALLED: 14, COUNT_MISMATCH: 15,
};
export const violation = (reason) => ({ kind: 4, code: codes[reason], reason, message: `node: ${reason}` });
export const [completed, goingAway, canceled] = [{ kind: 1 }, { kind: 2 }, { kind: 3 }];
export const tooLarge = { name: 'too large' }, late = { name: 'late' }; // of one element, no end

// count returns a count from the wire, or Infinity if it is unbounded. amount is its reverse.
export const count = (n) => (Number(n ?? 0) > 2 ** 62 ? Infinity : Number(n ?? 0));
const amount = (n) => (n === Infinity ? unbounded : String(n));
const announced = 64 << 10; // bytes of a large element that take a second

// A bucket is the flood rule.
class Bucket {
  constructor(most) { Object.assign(this, { most, time: most, tokens: 0, at: performance.now() }); }
  spend() {
    const now = performance.now();
    this.time = Math.min(this.most, this.time + (now - this.at) / 10);
    this.at = now;
    if (this.tokens + this.time < 1) return false;
    if (this.tokens > 0) this.tokens--;
    else this.time--;
    return true;
  }
}

export class Session {
  constructor({ server, framed, script, fault, io }) {
    Object.assign(this, { server, framed, fault, io, send: script.send, receive: script.receive, script });
    Object.assign(this, { queue: [], waiters: [], theirs: new Bucket(1000), mine: new Bucket(800), use: new Set(), peer: {} });
    Object.assign(this, { granted: 0, sent: 0, told: 0, sizes: [], held: 0 }); // of elements that go out
    Object.assign(this, { asked: 0, owed: 0, received: 0, consumed: 0, reported: 0, buffer: [], weight: 0, burned: 0 });
    this.wrote = this.heard = performance.now();
    this.timers = new Set();
  }

  // wait waits for a change. It returns false if ms pass before.
  wait(ms) {
    return new Promise((resolve) => {
      const timer = ms === undefined ? undefined : setTimeout(() => resolve(false), Math.max(0, ms));
      this.waiters.push(() => { clearTimeout(timer); resolve(true); });
    });
  }
  changed() { this.waiters.splice(0).forEach((wake) => wake()); }
  after(ms, f) { const t = setTimeout(f, ms); this.timers.add(t); return t; }

  // end ends the session. A direction that has ended before keeps its end.
  end(why) {
    this.over ??= why;
    this.outEnd ??= why.kind === 1 ? canceled : why;
    this.inEnd ??= why;
    this.timers.forEach(clearTimeout);
    this.changed();
  }

  // fail ends the session for a violation that this end finds by itself.
  fail(why) {
    this.end(why);
    this.io.fail(why);
  }

  // greet returns this end's Open.
  greet() {
    const n = this.grant();
    return { open: {
      min_version: 1, max_version: 1, features: this.server ? features.slice(0, 4) : features,
      will_send: Boolean(this.send), will_receive: Boolean(this.receive),
      initial: n > 0 ? { n: amount(n) } : null,
      max_message_bytes: this.receive?.max_message_bytes ?? 0, max_buffered_bytes: this.receive?.byte_window ?? 0,
      max_credit: this.send?.reject_beyond ? this.send.max_peer_credit : 0,
      heartbeat: this.script.heartbeat_ms ? { seconds: 0, nanos: this.script.heartbeat_ms * 1e6 } : null,
    } };
  }

  // meet handles the peer's Open. It returns the violation, if there is one.
  meet(control) {
    const open = control?.open;
    if (!open) return violation('UNEXPECTED_FRAME');
    if ((open.min_version ?? 0) > 1) return violation('VERSION');
    this.peer = open;
    (open.features ?? []).forEach((f) => features.includes(f) && f !== 'FEATURE_UNFINISHED' && this.use.add(f));
    this.heard = performance.now();
    const beat = Number(open.heartbeat?.seconds ?? 0) * 1000 + (open.heartbeat?.nanos ?? 0) / 1e6;
    this.beat = this.use.has('FEATURE_HEARTBEAT') ? beat : 0;
    this.watch();
    const first = (this.send?.first_request_timeout_ms || (this.server ? 30000 : 0));
    if (this.send && first) this.after(first, () => this.wanted || this.outEnd || this.terminal || this.fail(violation('FIRST_REQUEST_TIMEOUT')));
    return open.initial ? this.demand(open.initial, true) : undefined;
  }

  // watch sends heartbeats, and looks for those of the peer.
  watch() {
    const limit = this.use.has('FEATURE_HEARTBEAT') ? 3 * (this.script.heartbeat_ms ?? 0) : 0;
    if (this.over || !this.beat && !limit) return;
    const now = performance.now();
    if (limit && !this.deserted && now - this.heard >= limit + (this.grace ?? 0)) {
      this.fail(violation('PEER_STALLED'));
      return;
    }
    if (this.beat && !this.halved && now - this.wrote >= this.beat * 0.6) this.say(this.state());
    this.after(Math.min(this.beat || Infinity, limit || Infinity) / 20, () => this.watch());
  }
  state() {
    const most = count(this.send?.max_peer_credit) || Infinity;
    return { heartbeat: { sent: this.sent, credit: amount(Math.min(this.granted - this.sent, most)) } };
  }

  // say writes control, once the flood rule allows it. A Request joins one that waits. Nothing follows the half-close.
  say(control) {
    if (this.halving && !control.half) return;
    const last = this.queue.at(-1);
    if (last?.request && control.request) {
      last.request.n = amount(count(last.request.n) + count(control.request.n));
      last.request.consumed = Math.max(last.request.consumed ?? 0, control.request.consumed ?? 0);
      last.request.drain ||= control.request.drain;
    } else if (!(last?.heartbeat && control.heartbeat)) this.queue.push(control);
    this.flush();
  }
  flush() {
    for (; this.queue.length > 0 && !this.over; this.queue.shift()) {
      if (!this.mine.spend()) {
        this.paced ??= this.after(10, () => { this.paced = undefined; this.flush(); });
        return;
      }
      if (this.queue[0].half) {
        this.halved = true;
        this.io.half();
      } else this.write({ control: this.queue[0] });
    }
    this.changed();
  }
  write(message) {
    this.wrote = performance.now();
    this.full = !this.io.write(message);
  }
  drained() { this.full = false; this.changed(); } // the transport has room again

  // settle half-closes a client's stream that has nothing more to write.
  settle() {
    const out = !this.send || this.terminal || this.outEnd;
    const reported = !this.use.has('FEATURE_CONSUMED') || this.reported === this.received;
    const done = !this.receive || this.quit || this.complete && this.buffer.length === 0 && reported;
    if (this.server || !out || !done || this.over || this.halving) return;
    this.halving = true;
    this.say({ half: true });
  }

  // The sending direction.

  may() {
    if (this.fault === 'ignores credit') return true;
    const window = count(this.peer.max_buffered_bytes);
    return this.granted > this.sent && !this.full && (window === 0 || this.held < window);
  }
  // put sends an element. It waits for demand, at most ms if that is not 0. It returns why it could not.
  async put(element, ms) {
    const size = sizeOf(element);
    const most = count(this.peer.max_message_bytes);
    if (most && size > most) return tooLarge;
    const stall = this.send.stall_timeout_ms || 0;
    const end = performance.now() + (ms || stall);
    while (!this.outEnd && !this.may()) {
      if (this.deserted && this.granted <= this.sent) { this.outEnd = canceled; break; }
      if (await this.wait(ms || stall ? end - performance.now() : undefined)) continue;
      if (ms) return late;
      this.fail(violation('CREDIT_STARVED'));
    }
    if (this.outEnd) return this.outEnd;
    if (this.beat && size > announced * this.beat / 1000) {
      const state = this.state();
      state.heartbeat.next_bytes = size;
      this.write({ control: state });
    }
    this.sent++;
    this.sizes.push(size);
    this.held += size;
    this.pass(1);
    this.write({ element });
    return undefined;
  }
  pass(n) { this.mine.tokens += n; this.theirs.tokens += n; }
  // terminate sends Complete or Error and waits for the receiver. It returns how the direction has ended.
  async terminate(control) {
    if (this.outEnd) return this.outEnd;
    control[control.error ? 'error' : 'complete'].total = this.fault === 'miscounts' ? this.sent + 1 : this.sent;
    this.terminal = true;
    this.say(control);
    this.settle();
    while (!this.over && !this.outEnd) {
      const told = this.told === this.sent;
      if (this.server && (!this.use.has('FEATURE_CONSUMED') || told || this.deserted)) break;
      if (!this.server && this.receive && told) break;
      await this.wait();
    }
    if (!this.outEnd || this.outEnd === canceled && this.told === this.sent || control.error) return completed;
    return this.outEnd;
  }
  demand({ n, consumed, drain }, first) {
    const [more, done] = [count(n), Number(consumed ?? 0)];
    const most = this.send?.reject_beyond ? count(this.send.max_peer_credit) : 0;
    if (!this.send || !this.peer.will_receive) return violation('UNEXPECTED_FRAME');
    if (more < 0 || more === 0 && !done && !drain) return violation('INVALID_DEMAND');
    if (drain && !this.use.has('FEATURE_DRAIN')) return violation('UNEXPECTED_FRAME');
    if (done > this.sent || done && done < this.told) return violation('INVALID_CONSUMED');
    if (most && more > most - (this.granted - this.sent) && !(first && this.server) && !this.outEnd) return violation('DEMAND_TOO_LARGE');
    for (; this.told < done; this.told++) this.held -= this.sizes.shift();
    if (this.outEnd || this.terminal) return undefined; // a terminal also answers a drain
    this.wanted ||= more > 0;
    this.granted = count(this.granted + more);
    if (drain) {
      const burned = this.granted - this.sent;
      this.granted = this.sent;
      this.say({ drained: { sent: this.sent, burned: amount(burned) } });
    }
    return undefined;
  }

  // The receiving direction.

  // grant returns how much to request now, and counts it.
  grant() {
    if (!this.receive || this.inEnd || this.draining) return 0;
    const most = count(this.peer.max_credit) || Infinity;
    const window = Math.min(this.receive.window ?? 0, most);
    let n = Math.min(this.owed, most - (this.asked - this.received));
    if (this.receive.window) {
      n = window - (this.asked - this.consumed);
      if (n < Math.max(1, window - Math.floor(window / 2))) n = 0;
    }
    n = Math.max(0, n);
    if (this.owed !== Infinity) this.owed -= this.receive.window ? 0 : n;
    this.asked = count(this.asked + n);
    return n;
  }
  request(n) {
    this.owed = count(this.owed + count(n));
    const now = this.grant();
    if (now > 0) this.say({ request: { n: amount(now) } });
  }
  // report reports consumed elements with a demand for n more.
  report(n) {
    if (this.quit || this.over) return;
    const news = this.consumed > this.reported && (this.use.has('FEATURE_CONSUMED') || this.receive.byte_window || n > 0);
    if (n === 0 && !news) return;
    this.reported = this.consumed;
    this.say({ request: { n: amount(n), consumed: this.consumed } });
    this.settle();
  }
  // take returns the next element, or how the direction has ended.
  async take() {
    while (this.buffer.length === 0) {
      if (this.inEnd) return { end: this.inEnd };
      await this.wait();
    }
    const element = this.buffer.shift();
    if (!this.receive.hold) {
      this.consumed++;
      this.weight -= element.size;
      this.report(this.grant());
      this.settle();
    }
    return { element };
  }
  // drain takes unused demand back.
  async drain() {
    if (this.inEnd) return;
    this.draining = true;
    this.say({ request: { drain: true } });
    while (this.draining && !this.inEnd) await this.wait();
  }
  cancel() {
    if (this.quit) return;
    this.quit = true;
    this.queue = this.queue.filter((c) => !c.request);
    this.buffer = [];
    if (!this.complete) {
      this.inEnd = canceled;
      this.say({ cancel: { reason: 'the script says so' } });
    }
    this.settle();
  }

  // hear handles a message after the Open. It returns the violation, if there is one.
  hear({ control, elements, batch }) {
    this.heard = performance.now();
    this.grace = 0;
    const wrong = this.judge(control, elements, batch);
    this.changed();
    return wrong;
  }
  judge(control, elements, batch) {
    if (elements.length === 0 && !this.theirs.spend()) return violation('CONTROL_FLOOD');
    const wrong = control ? this.steer(control) : undefined;
    if (wrong) return wrong;
    if (batch && !this.use.has('FEATURE_BATCH')) return violation('UNEXPECTED_FRAME');
    return elements.length > 0 ? this.push(elements) : undefined;
  }
  steer({ open, request, cancel, complete, error, drained, heartbeat }) {
    if (open) return violation('UNEXPECTED_FRAME');
    if (request) return this.demand(request, false);
    if (cancel) {
      if (!this.send) return violation('UNEXPECTED_FRAME');
      this.outEnd ??= canceled;
      this.settle();
    }
    if (complete || error) return this.finish(complete ?? error, error);
    if (drained) return this.answered(drained);
    if (heartbeat?.next_bytes) this.grace = Number(heartbeat.next_bytes) / announced * 1000;
    if (heartbeat?.echo) this.say(this.state());
    return undefined;
  }
  finish({ total, going_away: leaves }, error) {
    if (!this.receive) return violation('UNEXPECTED_FRAME');
    if (this.complete) return violation('AFTER_TERMINAL');
    if (Number(total ?? 0) !== this.received && this.fault !== 'trusts totals') return violation('COUNT_MISMATCH');
    this.complete = true;
    this.inEnd ??= error ? { kind: 4, code: error.code ?? 0, reason: '', message: error.message ?? '' } : leaves ? goingAway : completed;
    this.report(0);
    this.settle();
    return undefined;
  }
  answered({ sent }) {
    if (!this.receive) return violation('UNEXPECTED_FRAME');
    if (this.complete) return violation('AFTER_TERMINAL');
    if (!this.draining) return violation('UNEXPECTED_FRAME');
    if (Number(sent ?? 0) !== this.received) return violation('COUNT_MISMATCH');
    this.burned += this.asked - this.received;
    this.asked = this.received;
    this.draining = false;
    return undefined;
  }
  push(elements) {
    if (!this.receive || !this.peer.will_send) return violation('UNEXPECTED_FRAME');
    if (this.complete) return violation('AFTER_TERMINAL');
    if (elements.length > this.asked - this.received) return violation('CREDIT_EXCEEDED');
    const [most, window] = [count(this.receive.max_message_bytes), count(this.receive.byte_window)];
    for (const element of elements) {
      element.size = element.size ?? sizeOf(element);
      if (most && element.size > most) return violation('MESSAGE_TOO_LARGE');
      if (window && this.weight >= window) return violation('BYTES_EXCEEDED');
      this.received++;
      this.pass(1);
      if (this.quit) this.consumed++;
      else {
        this.weight += element.size;
        this.buffer.push(element);
      }
    }
    if (!this.receive.window && this.owed > 0) this.report(this.grant());
    return undefined;
  }

  // left handles the peer's half-close at a server, or the end of the call at a client.
  left(status, trailer) {
    if (this.server) {
      this.deserted = true;
      if (this.receive && !this.inEnd) [this.inEnd, this.complete] = [completed, true];
      this.changed();
      return;
    }
    if (status.kind !== 1) {
      this.end(status);
      return;
    }
    if (trailer('weir-credit-unfinished').length > 0) this.inEnd ??= violation('COUNT_MISMATCH');
    if (!this.outEnd && this.terminal) {
      const sure = this.use.has('FEATURE_CONSUMED') && trailer('weir-credit-consumed').at(-1) !== 'unsure';
      this.outEnd = sure && this.told < this.sent ? canceled : completed;
    }
    this.end(completed);
  }
}

// sizeOf returns the encoded size of an element without its Control.
export function sizeOf({ number, payload }) {
  const varint = (n) => { let size = 1; for (; n >= 128; n = Math.floor(n / 128)) size++; return size; };
  const length = payload?.length ?? 0;
  return (Number(number ?? 0) ? 1 + varint(Number(number)) : 0) + (length ? 1 + varint(length) + length : 0);
}
