'use strict';
// The page asks for the snapshot again and again, and changes only the text that has changed.
// Everything is written with textContent, so names cannot become HTML.

const $ = (id) => document.getElementById(id);
const num = (x) => Number(x || 0);

// open starts to fill a node again, put puts the child with a key at the next place, and close
// removes the children that are left over.
function open(n) { n._at = 0; n._kids = n._kids || new Map(); return n; }
function put(n, key, tag, cls) {
  let k = n._kids.get(key);
  if (!k) {
    k = tag === 'svg' || tag === 'polyline'
      ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
    k._key = key;
    n._kids.set(key, k);
  }
  if (n.childNodes[n._at] !== k) n.insertBefore(k, n.childNodes[n._at] || null);
  n._at++;
  if (cls !== undefined) set(k, 'class', cls);
  return k;
}
function close(n) {
  while (n.childNodes.length > n._at) {
    n._kids.delete(n.lastChild._key);
    n.removeChild(n.lastChild);
  }
}
function text(n, s) { s = String(s); if (n.textContent !== s) n.textContent = s; return n; }
function set(n, name, value) { if (n.getAttribute(name) !== String(value)) n.setAttribute(name, value); return n; }

function time(s) {
  const a = Math.abs(s), sign = s < 0 ? '-' : '';
  if (a === 0) return '0 s';
  if (a < 1e-3) return sign + Number((a * 1e6).toPrecision(2)) + ' µs';
  if (a < 1) return sign + Number((a * 1e3).toPrecision(3)) + ' ms';
  if (a < 120) return sign + Number(a.toPrecision(3)) + ' s';
  if (a < 7200) return sign + Math.round(a / 60) + ' min';
  return sign + Math.round(a / 3600) + ' h';
}
const clock = (t) => new Date(t).toLocaleTimeString([], { hour12: false });
const count = (n) => num(n).toLocaleString('en');
const amount = (n) => Math.abs(n) < 10 ? String(Number(n.toPrecision(2))) : count(Math.round(n));

// spark draws values over the last five minutes, or since the first point. points are [time, value].
function spark(parent, name, points, now, show) {
  const most = Math.max(1e-9, ...points.map((p) => p[1]));
  const span = Math.min(3e5, Math.max(1e3, points.length ? now - points[0][0] : 0));
  const at = points.map(([t, v]) => Math.max(0, 120 * (1 - (now - t) / span)).toFixed(1) + ',' + (23 - 22 * v / most).toFixed(1));
  const svg = put(parent, 'svg', 'svg');
  set(svg, 'viewBox', '0 0 120 24');
  set(svg, 'preserveAspectRatio', 'none');
  set(svg, 'role', 'img');
  const last = points.length ? points[points.length - 1][1] : 0;
  set(svg, 'aria-label', name + ', the last ' + time(span / 1e3) + ': at most ' + show(points.length ? most : 0) + ', now ' + show(last));
  open(svg);
  set(put(svg, 'line', 'polyline'), 'points', at.join(' '));
  close(svg);
}
function figure(parent, name, value, points, now, show) {
  const f = open(put(parent, name, 'figure'));
  const c = open(put(f, 'caption', 'figcaption'));
  text(put(c, 'name', 'span'), name);
  text(put(c, 'value', 'b'), value);
  close(c);
  spark(f, name, points, now, show);
  close(f);
}

// table writes a table. columns are [title, class]. A cell is text, or a function that fills it.
function table(parent, key, caption, columns, rows, none) {
  if (!rows.length) {
    text(put(parent, key + '-none', 'p', 'none'), caption + ': ' + (none || 'none.'));
    return;
  }
  const box = open(put(parent, key, 'div', 'scroll'));
  set(box, 'role', 'region');
  set(box, 'tabindex', '0');
  set(box, 'aria-label', caption);
  const t = open(put(box, 'table', 'table'));
  text(put(t, 'caption', 'caption'), caption);
  const head = open(open(put(t, 'head', 'thead')) && put(t._kids.get('head'), 'row', 'tr'));
  columns.forEach(([title, cls], i) => text(set(put(head, i, 'th', cls || ''), 'scope', 'col'), title));
  close(head);
  const body = open(put(t, 'body', 'tbody'));
  rows.forEach((cells, r) => {
    const row = open(put(body, r, 'tr'));
    cells.forEach((cell, i) => {
      const c = put(row, i, i ? 'td' : 'th', columns[i][1] || '');
      if (!i) set(c, 'scope', 'row');
      if (typeof cell === 'function') cell(open(c)); else text(c, cell);
    });
    close(row);
  });
  close(body);
  close(t);
  close(box);
}
// details is a part that can be folded. A part without rows is left out.
function details(parent, key, title, rows, fill) {
  if (!rows) return;
  const fresh = !parent._kids.has(key);
  const d = open(put(parent, key, 'details'));
  if (fresh) d.open = true;
  text(put(d, 'summary', 'summary'), title + ' (' + count(rows) + ')');
  if (d.open) fill(d); else if (d.childNodes.length > 1) d._at = d.childNodes.length;
  if (fresh) d.addEventListener('toggle', () => latest && draw(latest));
  close(d);
}

// place is where a source of findings is on the page.
const sections = { gate: 'gates', breaker: 'clients', throttle: 'clients', meter: 'streams', monitor: 'pressure' };
function place(source) {
  const own = idOf(source);
  return $(own) ? own : sections[source.split(' ')[0]] || 'others';
}
const idOf = (source) => source.replace(/[^A-Za-z0-9_-]/g, '_');

const levels = { LEVEL_CRITICAL: 'critical', LEVEL_WARNING: 'warning', LEVEL_INFO: 'info' };
let told = '';
function findings(into, s) {
  open(into);
  if (!s.findings.length) text(put(into, 'none', 'p', 'none'), 'Nothing. No call was refused in the last seconds, and nothing is stuck.');
  else {
    const list = open(put(into, 'list', 'ul', 'findings'));
    s.findings.forEach((f, i) => {
      const level = levels[f.level] || 'info', li = open(put(list, i, 'li', level));
      text(put(li, 'level', 'span', 'level'), level + ':');
      text(put(li, 'before', 'span'), ' ');
      text(set(put(li, 'source', 'a', 'source'), 'href', '#' + place(f.source)), f.source);
      text(put(li, 'gap', 'span'), ' ');
      text(put(li, 'text', 'span', 'text'), f.text);
      close(li);
    });
    close(list);
  }
  close(into);
  // The numbers change every second. Only a new or vanished finding is read aloud.
  const news = s.findings.map((f) => levels[f.level] + ', ' + f.source).join('; ');
  if (news !== told) text($('news'), news ? 'Findings: ' + news : 'No findings.');
  told = news;
}

// troubled puts the sources first that had a finding within the last minute, the worst first.
const stays = 6e4, troubles = { since: {}, level: {} }, order = ['LEVEL_CRITICAL', 'LEVEL_WARNING', 'LEVEL_INFO'];
function remember(s, now) {
  for (const f of s.findings.slice().reverse()) { troubles.since[f.source] = now; troubles.level[f.source] = order.indexOf(f.level); }
}
function troubled(kind, list, now) {
  const rank = (x) => { const k = (kind || x.kind) + ' ' + x.name; return now - troubles.since[k] < stays ? troubles.level[k] : order.length; };
  return list.map((x) => [rank(x), x]).sort((a, b) => a[0] - b[0]).map(([, x]) => x);
}

const calls = (list) => list.map((c) => [
  c.method || '(unnamed)', c.class, c.tenant, time(c.age_seconds),
  c.deadline_left_seconds === undefined || c.deadline_left_seconds === null ? 'none'
    : c.deadline_left_seconds < 0 ? 'passed ' + time(-c.deadline_left_seconds) + ' ago' : time(c.deadline_left_seconds),
  c.cost,
]);
const callColumns = (age) => [['Method', 'name'], ['Class'], ['Tenant'], [age, 'number'], ['Deadline left', 'number'], ['Permits', 'number']];

// mostListed is the number of running calls that a snapshot lists.
const mostListed = 100;
const permits = (n) => count(n) + (num(n) === 1 ? ' permit is' : ' permits are');

function gate(into, g, now) {
  const a = open(set(put(into, 'gate ' + g.name, 'article'), 'id', idOf('gate ' + g.name)));
  const flags = [g.draining ? 'draining' : '', g.dry_run ? 'dry run' : ''].filter(Boolean).join(', ');
  text(put(a, 'name', 'h3'), 'Gate ' + g.name + (flags ? ' (' + flags + ')' : ''));
  const h = g.history.map((m) => Object.assign({}, m, { t: Date.parse(m.at) })).filter((m) => now - m.t < 3e5);
  const line = (f, last) => h.map((m) => [m.t, f(m)]).concat(last === undefined ? [] : [[now, last]]);
  const rate = (f) => h.map((m, i) => [m.t, f(m) / Math.max(1, (m.t - (i ? h[i - 1].t : m.t - 5e3)) / 1e3)]);
  const lastOf = (p) => p.length ? p[p.length - 1][1] : 0;
  const s = open(put(a, 'sparks', 'div', 'sparks'));
  const per = (v) => amount(v) + '/s', served = rate((m) => num(m.succeeded)), refused = rate((m) => num(m.refused));
  figure(s, 'Limit', count(g.limit), line((m) => m.limit, g.limit), now, count);
  figure(s, 'In flight', count(g.in_flight), line((m) => m.in_flight, g.in_flight), now, count);
  figure(s, 'Queue', count(g.queue) + ' of ' + count(g.queue_capacity), line((m) => m.queue, g.queue), now, count);
  figure(s, 'Oldest waiter', g.queue ? time(g.oldest_wait_seconds) : 'none', line((m) => m.oldest_wait_seconds, g.oldest_wait_seconds), now, time);
  figure(s, 'Served', per(lastOf(served)), served, now, per);
  figure(s, 'Refused', per(lastOf(refused)), refused, now, per);
  close(s);
  const since = g.last_end_seconds < 0 ? 'No call has ended yet.' : 'A call last ended ' + time(g.last_end_seconds) + ' ago.';
  text(put(a, 'totals', 'p', 'note'), since + ' So far ' + count(g.succeeded) + ' calls succeeded, ' + count(g.overloaded) + ' ran into overload, ' +
    count(g.ignored) + ' ended otherwise, and ' + count(g.left) + ' left the queue with their callers.' +
    (g.ready ? ' ' + count(g.ready) + ' calls go on without a permit.' : '') +
    (num(g.send_stalls) ? ' ' + count(g.send_stalls) + ' streams were ended because their clients took no messages.' : '') +
    (num(g.panics) ? ' ' + count(g.panics) + ' panics.' : ''));
  const busy = (c) => num(c.held) || num(c.waiting) || c.refused.length;
  table(a, 'classes', 'By class', [['Class'], ['Permits', 'number'], ['Waiting', 'number'], ['Oldest', 'number'], ['Queue'],
    ['Waiting, lately'], ['Refused, lately'], ['Refused so far, by reason', 'words']],
  g.classes.map((c, i) => [c, i]).filter(([c]) => busy(c)).map(([c, i]) => [c.name, c.held || !g.unlisted ? c.held : 'not known', c.waiting, c.waiting ? time(c.oldest_wait_seconds) : '', c.standing ? 'stands' : 'drains',
    (cell) => { spark(cell, c.name + ' waiting', line((m) => (m.classes[i] || {}).waiting || 0, c.waiting), now, count); close(cell); },
    (cell) => { spark(cell, c.name + ' refused', rate((m) => num((m.classes[i] || {}).refused)), now, per); close(cell); },
    c.refused.map((r) => r.reason + ' ' + count(r.count)).join(', ') || 'none']),
  'no class has listed calls or refusals.');
  details(a, 'refusals', 'Why was this refused?', g.refusals.length, (d) => table(d, 't', 'The last refusals, the newest first',
    [['At'], ['Method', 'name'], ['Class'], ['Tenant'], ['Reason'], ['Why', 'words'], ['Stands for', 'number']],
    g.refusals.map((r) => [clock(r.at), r.method || '(unnamed)', r.class, r.tenant, r.reason, r.explanation, count(r.stands_for)])));
  details(a, 'decisions', 'Decisions of the limit', g.decisions.length, (d) => table(d, 't', 'The last changes, the newest first',
    [['At'], ['Limit', 'number'], ['Why', 'words'], ['What was seen', 'words']],
    g.decisions.map((x) => [clock(x.at), (x.to > x.from ? 'raised ' : 'lowered ') + x.from + ' → ' + x.to, x.why, x.seen])));
  details(a, 'running', 'Running calls', g.running.length || g.unlisted, (d) => {
    table(d, 't', 'The calls that have run longest', callColumns('Runs for'), calls(g.running), 'none is listed.');
    if (g.unlisted) text(put(d, 'more', 'p', 'note'), permits(g.unlisted) + ' in use by calls that are not listed. ' + (g.running.length < mostListed
      ? 'These calls began while nobody looked at this page, so their methods are not known. A goroutine dump shows where they are.'
      : 'The list is full. Calls that began while nobody looked at this page are not listed either.'));
  });
  details(a, 'waiting', 'Waiting calls', g.queue, (d) => table(d, 't', 'The calls that have waited longest', callColumns('Waits for'), calls(g.waiting)));
  details(a, 'tenants', 'Tenants with calls', g.tenants, (d) => table(d, 't', 'The busiest tenants',
    [['Tenant'], ['Class'], ['Permits', 'number'], ['Waiting', 'number']],
    g.busiest_tenants.map((t) => [t.name, t.class, t.held, t.waiting])));
  const empty = [[g.refusals.length, 'refusals'], [g.decisions.length, 'changes of the limit'], [g.running.length || g.unlisted, 'running calls'],
    [g.queue, 'waiting calls'], [g.tenants, 'tenants']].filter(([n]) => !num(n)).map(([, name]) => name);
  if (empty.length) text(put(a, 'empty', 'p', 'none'), 'Nothing to show about ' + empty.join(', ') + '.');
  close(a);
}

function clients(into, s) {
  open(into);
  table(into, 'circuits', 'Circuits', [['Method', 'name'], ['Target', 'name'], ['Breaker'], ['State', 'marks'], ['Probe in', 'number'], ['Sent', 'number'], ['Failed', 'number'], ['Refused', 'number'], ['Opened', 'number'], ['Addresses: failed of calls', 'words']],
    s.circuits.map((c) => [c.method, c.target, c.breaker, c.state, c.probe_in_seconds ? time(c.probe_in_seconds) : '', count(c.allowed), count(c.failed), count(c.refused), count(c.opened),
      c.addresses.map((a) => a.address + ': ' + a.failed + ' of ' + a.calls).join('; ')]));
  table(into, 'throttles', 'Throttles', [['Method', 'name'], ['Target', 'name'], ['Throttle'], ['Class'], ['Refused here', 'number'], ['Sent', 'number'], ['Accepted', 'number'], ['Rejected there', 'number'], ['Refused here so far', 'number']],
    s.throttles.map((t) => [t.method, t.target, t.throttle, t.class, (100 * t.probability).toFixed(0) + ' %', count(t.allowed), count(t.accepted), count(t.rejected), count(t.refused)]));
  table(into, 'budgets', 'Retry budgets', [['Target', 'name'], ['Meter'], ['Tokens left', 'number'], ['Retries stop at', 'number']],
    s.retry_budgets.map((b) => [b.target, b.meter, 'about ' + amount(b.tokens) + ' of ' + amount(b.most), amount(b.most / 2)]),
    'give a retry.Meter to ClientConfig.Retries and to this page to see them.');
  if (s.retry_budgets.length) text(put(into, 'budget', 'p', 'note'), 'gRPC keeps its tokens private. This is an estimate from the calls of a client. gRPC may have more, because it refills the budget when the addresses of a target change.');
  table(into, 'retries', 'Retries', [['Method', 'name'], ['Target', 'name'], ['Meter'], ['Retries per call, lately', 'number'], ['Calls', 'number'], ['Retries', 'number'], ['Never seen by a server, sent again', 'number'], ['Not sent again, as the budget was used up', 'number']],
    s.retries.map((r) => [r.method, r.target, r.meter, amount(r.recent), count(r.calls), count(r.retries), count(r.transparent), count(r.withheld)]));
  close(into);
}

function streams(into, s) {
  open(into);
  if (!s.meters.length) text(put(into, 'none', 'p', 'none'), 'No meter was given to this page.');
  troubled('meter', s.meters, Date.parse(s.at)).forEach((m) => {
    const a = open(set(put(into, 'meter ' + m.name, 'article'), 'id', idOf('meter ' + m.name)));
    text(put(a, 'name', 'h3'), 'Streams ' + m.name);
    text(put(a, 'sum', 'p', 'note'), count(m.open) + ' open, ' + count(m.starving) + ' senders wait for demand. Credit ' + count(m.credit) + ', demand ' + count(m.demand) +
      ', window ' + count(m.window) + ', ' + count(m.lag) + ' elements arrived and not consumed. So far ' + count(m.sent) + ' sent, ' + count(m.received) + ' received, ' + count(m.dropped) + ' dropped.' +
      (m.violations.length ? ' Ended here: ' + m.violations.map((v) => v.reason + ' ' + count(v.count)).join(', ') + '.' : ''));
    const bound = (n) => num(n) < 0 ? 'no bound' : count(n);
    table(a, 'streams', 'The streams that have waited longest', [['Method', 'name'], ['Peer'], ['Open for', 'number'], ['Who waits for whom', 'words'], ['Sent', 'number'], ['Credit', 'number'],
      ['Received', 'number'], ['Requested', 'number'], ['Window', 'number'], ['Unread', 'number']],
    m.streams.map((x) => [x.method || (x.server ? '(unnamed)' : "(client's end)"), x.peer, time(x.age_seconds), x.state,
      x.sending ? count(x.sending.sent) : '', x.sending ? bound(x.sending.credit) : '', x.receiving ? count(x.receiving.received) : '',
      x.receiving ? bound(x.receiving.requested) : '', x.receiving ? count(x.receiving.window) : '', x.receiving ? count(x.receiving.buffered) : '']));
    close(a);
  });
  close(into);
}

function pressure(into, s) {
  open(into);
  const per = (v) => (100 * v).toFixed(0) + ' %';
  if (!s.monitors.length) text(put(into, 'none', 'p', 'none'), 'No monitor was given to this page.');
  troubled('monitor', s.monitors, Date.parse(s.at)).forEach((m) => {
    const a = open(set(put(into, 'monitor ' + m.name, 'article'), 'id', idOf('monitor ' + m.name)));
    text(put(a, 'name', 'h3'), 'Monitor ' + m.name + ': ' + m.level + (m.signal ? ', because of ' + m.signal : ''));
    text(put(a, 'marks', 'p', 'note'), 'Elevated from ' + per(m.elevated) + ', high from ' + per(m.high) + ', extreme from ' + per(m.extreme) + ', calm again below ' + per(m.release) + '. Changes of the level so far: ' + count(m.changes) + '.');
    table(a, 'signals', 'Signals', [['Signal'], ['Used', 'number'], ['Failed reads', 'number'], ['Last error', 'words']],
      m.signals.map((x) => [x.name, per(x.value), count(x.failures), x.error || 'none']));
    close(a);
  });
  close(into);
}

function others(into, s) {
  open(into);
  if (!s.others.length) text(put(into, 'none', 'p', 'none'), 'No meter of a broker was given to this page.');
  troubled('', s.others, Date.parse(s.at)).forEach((o) => table(into, o.kind + ' ' + o.name, o.kind + ' ' + o.name, [['Number'], ['Value']], o.fields.map((f) => [f.name, f.value])));
  close(into);
}

const body = (id) => $(id).querySelector(':scope > div');
let latest = null, paused = false, timer = 0;
function draw(s) {
  latest = s;
  const now = Date.parse(s.at);
  remember(s, now);
  findings(body('findings'), s);
  const g = open(body('gates'));
  if (!s.gates.length) text(put(g, 'none', 'p', 'none'), 'No gate was given to this page.');
  troubled('gate', s.gates, now).forEach((x) => gate(g, x, now));
  close(g);
  clients(body('clients'), s);
  streams(body('streams'), s);
  pressure(body('pressure'), s);
  others(body('others'), s);
  const worst = s.findings.length ? levels[s.findings[0].level] : '';
  document.title = (worst === 'critical' || worst === 'warning' ? worst + ': ' : '') + 'weir';
}

const every = matchMedia('(prefers-reduced-motion: reduce)').matches ? 5000 : 1000;
async function look() {
  clearTimeout(timer);
  const state = $('state'), end = new AbortController(), late = setTimeout(() => end.abort(), 10000);
  try {
    const r = await fetch('?format=json', { signal: end.signal, cache: 'no-store' });
    if (!r.ok) throw new Error('status ' + r.status);
    const s = await r.json();
    draw(s);
    text(state, paused ? 'Paused at ' + clock(s.at) : 'State of ' + clock(s.at));
    set(state, 'class', '');
  } catch (e) {
    text(state, 'The server does not answer (' + e.message + ').' + (latest ? ' This is the state of ' + clock(latest.at) + '.' : ''));
    set(state, 'class', 'lost');
  }
  clearTimeout(late);
  if (!paused && !document.hidden) timer = setTimeout(look, every);
}
$('pause').addEventListener('click', () => {
  paused = !paused;
  set($('pause'), 'aria-pressed', paused);
  if (paused) { clearTimeout(timer); if (latest) text($('state'), 'Paused at ' + clock(latest.at)); } else look();
});
document.addEventListener('visibilitychange', () => { if (!document.hidden && !paused) look(); });
look();
