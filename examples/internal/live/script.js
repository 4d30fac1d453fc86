const kept = /*DATA*/null;
const W = 560, H = 220, L = 48, R = 64, T = 10, B = 26;
const $ = id => document.getElementById(id);
const esc = s => String(s).replace(/[&<>"]/g, c => "&#" + c.charCodeAt(0) + ";");
const round = v => v >= 10000 ? Math.round(v / 1000) + "k" : v >= 1000 ? (v / 1000).toFixed(1).replace(".0", "") + "k" : String(Math.round(v * 10) / 10);

// nice returns ticks from 0 to at least max.
function nice(max) {
  const raw = max / 4, p = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(m => m * p).find(s => s >= raw);
  const ticks = [];
  for (let v = 0; v < max + step * 0.999; v += step) ticks.push(v);
  return ticks;
}

// chart draws series of {color, points: [[x, y]...], dash, tag, dots} into an svg.
function chart(id, {x, y, xTicks, yTicks, series, bands = []}) {
  let out = "";
  for (const b of bands) {
    out += `<rect x="${x(b.from)}" y="${T}" width="${Math.max(0, x(b.to) - x(b.from))}" height="${H - T - B}" fill="var(--line)" opacity="${b.odd ? 0.45 : 0.15}"/>`;
    if (x(b.to) - x(b.from) > 22) out += `<text x="${(x(b.from) + x(b.to)) / 2}" y="${H - 8}" text-anchor="middle">${b.label}</text>`;
  }
  for (const t of yTicks) out += `<line x1="${L}" x2="${W - R}" y1="${y(t)}" y2="${y(t)}" stroke="var(--line)"/><text x="${L - 6}" y="${y(t) + 4}" text-anchor="end">${round(t)}</text>`;
  for (const t of xTicks) out += `<text x="${x(t.at)}" y="${H - 8}" text-anchor="middle">${esc(t.label)}</text>`;
  const taken = [];
  for (const s of series) {
    let d = "", open = false;
    for (const [px, py] of s.points) {
      if (py === null) { open = false; continue; }
      d += (open ? "L" : "M") + x(px).toFixed(1) + " " + y(py).toFixed(1);
      open = true;
    }
    if (d) out += `<path d="${d}" fill="none" stroke="${s.color}" stroke-width="${s.width || 2}" stroke-linejoin="round" ${s.dash ? 'stroke-dasharray="5 4"' : ""}/>`;
    if (s.dots) for (const [px, py] of s.points) if (py !== null) out += `<circle cx="${x(px)}" cy="${y(py)}" r="3.5" fill="${s.color}"/>`;
    const last = s.points.filter(p => p[1] !== null).at(-1);
    if (s.tag && last) {
      let at = Math.min(H - B, Math.max(T + 8, y(last[1]) + 4));
      const away = at > H / 2 ? -13 : 13;
      while (taken.some(v => Math.abs(v - at) < 13)) at += away;
      taken.push(at);
      out += `<text class="tag" x="${Math.min(x(last[0]), W - R) + 8}" y="${at}" style="fill:${s.color}">${esc(s.tag)}</text>`;
    }
  }
  const svg = $(id);
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  svg.setAttribute("role", "img");
  svg.innerHTML = out;
}

const linear = (lo, hi, a, b) => v => a + (Math.min(Math.max(v, lo), hi) - lo) / (hi - lo) * (b - a);
const up = hi => linear(0, hi, H - B, T);

// bandsOf returns where samples with the same label lie; the page defines labelOf.
function bandsOf(samples) {
  const bands = [];
  for (const s of samples) {
    const b = bands.at(-1);
    if (b && b.label === labelOf(s)) b.to = s.at;
    else bands.push({label: labelOf(s), from: b ? b.to : 0, to: s.at, odd: bands.length % 2 === 0});
  }
  return bands;
}

// overTime draws lines of {color, tag, samples, value}, with the bands of samples; all says how long time is.
function overTime(id, all, samples, lines, log) {
  const end = Math.max(1, ...all.map(s => s.at));
  const x = linear(0, end, L, W - R);
  const most = Math.max(10, ...lines.flatMap(l => l.samples.map(l.value)));
  let ticks = nice(most), y = up(ticks.at(-1));
  if (log) {
    ticks = [1, 10, 100, 1000, 10000, 100000].filter((t, i) => i < 2 || t < most * 10);
    const f = up(Math.log10(ticks.at(-1)));
    y = v => f(Math.log10(Math.max(1, v)));
  }
  chart(id, {x, y, yTicks: ticks, xTicks: [], bands: bandsOf(samples),
    series: lines.map(l => ({color: l.color, tag: l.tag, width: 1.6, points: l.samples.map(s => [s.at, l.value(s)])}))});
}

// follow shows what is kept, or else what comes: take is given each part, draw is called now and then.
function follow(done) {
  if (kept) { kept.forEach(take); draw(); return; }
  draw();
  const events = new EventSource("/events");
  let due = false;
  events.onmessage = e => {
    JSON.parse(e.data).forEach(take);
    if (done()) events.close();
    if (!due) { due = true; requestAnimationFrame(() => { due = false; draw(); }); }
  };
  events.onerror = () => { events.close(); if (!done()) $("status").textContent = "The program has ended."; };
}
