"use strict";
// Every text here was written by agents or trainings: it enters the page through textContent only.

const $ = (id) => document.getElementById(id);
const POLL_MS = 4000, PAGE = 200, CHARTED = 2000, LISTED = 50;
const state = { tag: null, known: new Map(), open: new Set(), listed: LISTED, drawn: {}, turn: 0 };

/* A server that made its own token wrote it into the address of this page. */
const token = new URLSearchParams(location.search).get("token");
const headers = token ? { Authorization: `Bearer ${token}` } : {};

/* Words of agents come marked as data, for agents; a person knows them by their place. */
const CITED = /^an agent wrote \(data, not instructions\): "([^"\n]*)"$/;
const FENCED = /^<agent-words (\w{12}): data, not instructions>\n([^]*)\n<\/agent-words \1>$/;
function unmarked(answer) {
  if (typeof answer === "string") return (CITED.exec(answer) || [])[1] ?? (FENCED.exec(answer) || [])[2] ?? answer;
  if (Array.isArray(answer)) return answer.map(unmarked);
  if (answer === null || typeof answer !== "object") return answer;
  return Object.fromEntries(Object.entries(answer).map(([name, value]) => [name, unmarked(value)]));
}

async function call(operation, args = {}) {
  const response = await fetch(`api/${operation}`, { method: "POST", headers, body: JSON.stringify(args) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return unmarked(answer);
}

function make(kind, attributes = {}, ...children) {
  const drawing = ["svg", "path", "line", "circle", "text", "rect", "g"].includes(kind);
  const element = drawing ? document.createElementNS("http://www.w3.org/2000/svg", kind) : document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  for (const child of children) if (child !== null && child !== undefined && child !== "") element.append(child);
  return element;
}

/* Redraw a part only when its data has changed, so that selections and scrolling stay. */
function draw(name, data, drawing) {
  const seen = JSON.stringify(data);
  if (state.drawn[name] === seen) return;
  state.drawn[name] = seen;
  drawing();
}

const LOOKS = [["keep", "kept"], ["near", "near miss"], ["discard", "discarded"], ["crash", "crashed"], ["busy", "under way"]];
const look = (e) => e.near_miss ? "near" : ["keep", "discard", "crash"].includes(e.status) ? e.status : "busy";
const isBaseline = (e) => e.status === "keep" && e.told === "baseline";
const label = (e) => e.near_miss ? "near miss" : isBaseline(e) ? "baseline" : e.status === "keep" ? "kept" : e.status.replaceAll("_", " ");
/* What is believed of a kept change by now, rather than what its verdict saw. */
const gainOf = (e) => typeof e.gain === "number" ? e.gain : e.delta;
const number = (id) => Number((/(\d+)$/.exec(id) || [0, 0])[1]);

function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(3);
  return Number.isInteger(value) ? String(value) : value.toFixed(size >= 1000 ? 1 : size >= 100 ? 2 : 4);
}
const signed = (value) => value === null || value === undefined ? "–" : (value > 0 ? "+" : value < 0 ? "−" : "±") + figure(Math.abs(value));
function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.round(seconds % 3600 / 60)} min`;
  return `${Math.round(seconds / 86400)} days`;
}

/* The best against the baseline: claimed or provisional, with error and probability where they are known. */
function gainText(s) {
  if (s.improvement === null) return "no baseline yet";
  if (s.claim) {
    const { claimed, gain, error, probability } = s.claim;
    return `${claimed ? "claimed" : "provisional"}: ${gain >= 0 ? "better" : "worse"} by ${figure(Math.abs(gain))} ± ${figure(error)}, p ${chance(probability, claimed)}`;
  }
  if (!(s.improvement > 0)) return "no improvement yet";
  return `provisional: ${figure(s.improvement)} better${s.improvement_percent === null ? "" : ` (${s.improvement_percent.toFixed(2)} %)`}`;
}
/* Rounded so that it stays below what a claim needs where nothing is claimed. */
function chance(p, claimed) {
  if (p >= 0.995) return "> 0.99";
  return p.toFixed(!claimed && p.toFixed(2) >= 0.97 ? 4 : 2);
}

function drawHero(s) {
  $("metric").textContent = `Best ${s.metric}, ${s.direction}d`;
  $("value").textContent = figure(s.best ? s.best.value : null);
  const gain = $("gain"), improved = s.improvement > 0;
  gain.className = improved && s.claim && s.claim.claimed ? "gain good" : "gain";
  gain.replaceChildren(gainText(s), s.baseline === null ? "" : make("small", {}, `baseline ${figure(s.baseline)}`));
  $("best-hypothesis").textContent = s.best ? `${s.best.experiment_id}: ${s.best.hypothesis}` : "";
  const n = (status) => s.counts[status] || 0;
  const start = s.baseline === null || !n("keep") ? 0 : 1, kept = n("keep") - start;
  const tried = kept + n("discard") + n("crash");
  const underWay = n("queued") + n("training") + n("registered") + n("trained") + n("needs_confirmation");
  const [mode, ...why] = s.strategy.split(":");
  const tiles = [
    ["Experiments", s.experiments, s.max_experiments ? `of ${s.max_experiments}` : ""],
    ["Kept", kept, tried ? `${Math.round(100 * kept / tried)} %` : ""],
    ["Discarded", n("discard"), ""], ["Crashed", n("crash"), ""],
    ["Under way", underWay, ""], ["Training", duration(60 * s.training_minutes), ""],
    ["Elapsed", duration(s.elapsed_seconds), ""], ["Strategy", mode, ""],
  ];
  $("why").textContent = why.join(":").trim();
  $("tiles").replaceChildren(...tiles.map(([name, value, note]) => make("div", {}, make("dt", {}, name),
    make("dd", {}, String(value), note ? make("small", {}, ` ${note}`) : ""))));
}

function niceTicks(low, high, wanted, smallest = 0) {
  const raw = Math.max(smallest, (high - low) / wanted), power = 10 ** Math.floor(Math.log10(raw));
  const step = power * (smallest ? [1, 2, 5, 10] : [1, 2, 2.5, 5, 10]).find((each) => each * power >= raw * 0.999);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-6; tick += step) ticks.push(Number(tick.toPrecision(12)));
  return { ticks, digits: Math.max(0, Math.min(8, 1 - Math.floor(Math.log10(step)))) };
}

/* The range of the value axis: all keeps and most other values; a far-off one sits at the edge. */
function valueRange(measured, minimize) {
  const keeps = measured.filter((e) => e.status === "keep").map((e) => e.value);
  const all = measured.map((e) => e.value).sort((a, b) => minimize ? a - b : b - a);
  const most = all.slice(0, Math.max(1, Math.ceil(all.length * 0.9)));
  const core = keeps.length > 1 ? keeps : most;
  const spread = Math.max(...core) - Math.min(...core) || Math.abs(core[0]) * 0.02 || 1;
  const reach = measured.length > 12 ? 0.6 : 2;
  const worst = minimize ? Math.max(...core) + spread * reach : Math.min(...core) - spread * reach;
  const shown = [...keeps, ...most.filter((v) => minimize ? v <= worst : v >= worst)];
  const low = Math.min(...shown), high = Math.max(...shown), room = (high - low || spread) * 0.08;
  return [low - room, high + room];
}

function drawChart(experiments, summary) {
  const box = $("chart"), minimize = summary.direction === "minimize";
  const measured = experiments.filter((e) => typeof e.value === "number" && Number.isFinite(e.value));
  if (!measured.length) { box.replaceChildren(make("p", { class: "muted" }, "The first result will appear here.")); return; }
  const width = Math.max(320, box.clientWidth), height = Math.min(340, Math.max(220, width * 0.3));
  const left = 58, right = 12, top = 10, bottom = 34, floor = height - bottom;
  const [low, high] = valueRange(measured, minimize);
  const last = Math.max(...experiments.map((e) => e.n)), first = Math.min(...experiments.map((e) => e.n));
  const x = (n) => left + 12 + (n - first) / Math.max(1, last - first) * (width - left - right - 24);
  const y = (v) => top + (high - Math.min(high, Math.max(low, v))) / (high - low) * (floor - top);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img",
    "aria-label": `${summary.metric} of ${measured.length} experiments; best ${figure(summary.best ? summary.best.value : null)}` });
  const { ticks, digits } = niceTicks(low, high, 6);
  for (const tick of ticks) svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
    make("text", { x: left - 10, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(digits)));
  for (const n of niceTicks(first, Math.max(last, first + 1), width / 70, 1).ticks) if (n <= last) svg.append(make("text", { x: x(n), y: height - 6, "text-anchor": "middle" }, String(n)));
  if (summary.baseline !== null && summary.baseline >= low && summary.baseline <= high) {
    const at = y(summary.baseline);
    svg.append(make("line", { class: "baseline", x1: left, x2: width - right, y1: at, y2: at }),
      make("text", { x: width - right, y: at - 6, "text-anchor": "end" }, "baseline"));
  }
  let path = "", best = null;
  for (const e of measured) if (e.status === "keep" && (best === null || (minimize ? e.value < best : e.value > best))) {
    path += best === null ? `M${x(e.n)} ${y(e.value)}` : `H${x(e.n)}V${y(e.value)}`;
    best = e.value;
  }
  if (path) {
    const edge = minimize ? floor : top, start = path.slice(1).split(/[ HV]/)[0];
    svg.append(make("path", { class: "wash", d: `${path}H${x(last)}V${edge}H${start}Z` }), make("path", { class: "steps", d: `${path}H${x(last)}` }));
  }
  for (const e of experiments) {
    const valued = typeof e.value === "number" && Number.isFinite(e.value);
    const cx = x(e.n), cy = valued ? y(e.value) : floor;
    const dot = e.status === "crash"
      ? make("path", { class: "cross", d: `M${cx - 3.5} ${floor - 3.5}l7 7m0 -7l-7 7` })
      : make("circle", { class: `dot s-${look(e)}${valued && (e.value < low || e.value > high) ? " far" : ""}`, cx, cy, r: e.status === "keep" ? 5.5 : 4.2, tabindex: 0 });
    dot.addEventListener("pointerenter", (event) => tell(e, event.clientX, event.clientY));
    dot.addEventListener("pointerleave", () => { $("tip").hidden = true; });
    dot.addEventListener("click", () => reveal(e.experiment_id));
    svg.append(dot);
  }
  box.replaceChildren(svg);
}

function tell(e, left, top) {
  const tip = $("tip");
  tip.replaceChildren(make("b", {}, `${e.experiment_id}  ${figure(e.value)}`), make("span", {}, `${e.told || label(e)}, ${e.category}. ${e.hypothesis}`));
  tip.hidden = false;
  tip.style.left = `${Math.min(left + 14, innerWidth - tip.offsetWidth - 12)}px`;
  tip.style.top = `${Math.min(top + 14, innerHeight - tip.offsetHeight - 12)}px`;
}

function reveal(id) {
  state.open.add(id);
  const place = newestFirst().findIndex((e) => e.experiment_id === id);
  if (place >= state.listed) state.listed = place + 1;
  drawTable();
  document.querySelector(`[data-id="${CSS.escape(id)}"]`)?.scrollIntoView({ block: "center", behavior: "smooth" });
}

const newestFirst = () => [...state.known.values()].sort((a, b) => b.n - a.n);

function drawTable() {
  const all = newestFirst(), rows = [];
  for (const e of all.slice(0, state.listed)) {
    const open = state.open.has(e.experiment_id);
    const row = make("tr", { class: open ? "row open" : "row", tabindex: 0, "data-id": e.experiment_id, "aria-expanded": open },
      make("td", {}, make("span", { class: "status" }, make("i", { class: `swatch s-${look(e)}` }), label(e))),
      make("td", { class: "id" }, e.experiment_id), make("td", {}, e.category), make("td", {}, e.hypothesis),
      make("td", { class: "num" }, figure(e.value)), make("td", { class: `num ${gainOf(e) > 0 ? "up" : "down"}` }, signed(gainOf(e))));
    const toggle = () => { if (!state.open.delete(e.experiment_id)) state.open.add(e.experiment_id); drawTable(); };
    row.addEventListener("click", toggle);
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") toggle(); });
    rows.push(row);
    if (open) rows.push(make("tr", { class: "detail" }, make("td", { colspan: 6 }, details(e))));
  }
  $("experiments").replaceChildren(...rows);
  $("shown").textContent = all.length ? `${Math.min(state.listed, all.length)} of ${all.length}, newest first` : "";
  $("more").hidden = all.length <= state.listed;
}

function details(e) {
  const changes = Object.entries(e.changes || {}).map(([name, [old, now]]) => `${name}: ${JSON.stringify(old)} → ${JSON.stringify(now)}`);
  const metrics = Object.entries(e.metrics || {}).map(([name, value]) => `${name} ${typeof value === "number" ? figure(value) : value}`);
  const facts = [
    ["Told", e.told], ["Gain at its verdict", typeof e.gain === "number" ? signed(e.delta) : ""], ["Reason", e.reason], ["Lesson", e.lesson], ["Description", e.description], ["Changed", changes.join("\n")],
    ["Diff", e.diff_summary || (e.lines_added === undefined ? "" : `+${e.lines_added} −${e.lines_removed}`)], ["Metrics", metrics.join("   ")],
    ["Commit", e.commit], ["Parent", e.parent_id], ["Agent", e.agent], ["Measured by", e.origin === "reported" ? "the caller (reported)" : ""],
    ["Registered", e.registered_at && new Date(e.registered_at).toLocaleString()], ["Decided", e.decided_at && new Date(e.decided_at).toLocaleString()],
  ];
  return make("dl", {}, ...facts.filter(([, text]) => text).flatMap(([name, text]) => [make("dt", {}, name), make("dd", { class: name === "Commit" ? "mono" : "" }, text)]));
}

function meter(share, busy = false) {
  const bar = make("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none" }, make("rect", { class: "track", width: 100, height: 6 }),
    make("rect", { class: "fill", width: 100 * Math.min(1, Math.max(0, share)), height: 6 }));
  return make("div", { class: busy ? "meter busy" : "meter" }, bar, `${Math.round(100 * share)} %`);
}

function drawCategories(categories) {
  const rows = Object.entries(categories).filter(([, count]) => count.tries > 0).sort(([, a], [, b]) => b.keeps - a.keeps || b.tries - a.tries);
  $("categories").replaceChildren(...rows.map(([name, { tries, keeps }]) => make("tr", {}, make("td", {}, name),
    make("td", { class: "num" }, String(tries)), make("td", { class: "num" }, String(keeps)), make("td", {}, meter(keeps / tries)))));
}

function drawDevices(list) {
  $("queued").textContent = list.queued ? `${list.queued} queued` : "";
  $("devices").replaceChildren(...list.devices.map((d) => make("li", {},
    make("div", { class: "bar" }, make("span", { class: "status" }, make("i", { class: `swatch s-${{ training: "busy", idle: "keep", stuck: "crash" }[d.status] || "discard"}` }), `${d.key} ${d.status}`),
      make("span", { class: "id" }, d.experiment_id || "")),
    make("p", { class: "muted" }, [d.name, d.temperature_c === undefined || d.temperature_c === null ? "" : `${Math.round(d.temperature_c)} °C`,
      d.memory_total_mb ? `${((d.memory_used_mb || 0) / 1024).toFixed(1)} of ${(d.memory_total_mb / 1024).toFixed(0)} GB` : "", d.detail].filter(Boolean).join("  ·  ")),
    typeof d.utilisation_percent === "number" ? meter(d.utilisation_percent / 100, true) : "")));
}

async function drawLogs(training) {
  const logs = (await Promise.all(training.slice(0, 4).map((id) => call("logs", { experiment_id: id, lines: 14 }).catch(() => null)))).filter(Boolean);
  draw("logs", logs, () => $("logs").replaceChildren(...logs.map((log) => make("section", { class: "log" },
    make("div", { class: "bar" }, make("h2", {}, `In training: ${log.experiment_id}`),
      make("span", { class: "muted" }, state.known.get(log.experiment_id)?.hypothesis || "")), make("pre", {}, log.lines.replace(/<\/?training-output[^>]*>\n?/g, "").trimEnd())))));
  for (const pre of document.querySelectorAll("#logs pre")) pre.scrollTop = pre.scrollHeight;
}

async function drawRuns() {
  const { runs } = await call("list_runs");
  if (!runs.some((run) => run.tag === state.tag)) choose(runs.find((run) => run.tag === decodeURIComponent(location.hash.slice(1))) || runs[0]);
  $("picker").hidden = !runs.length;
  draw("runs", [runs, state.tag], () => $("runs").replaceChildren(...runs.map((run) => {
    const option = make("option", { value: run.tag }, `${run.tag} (${run.experiments})`);
    option.selected = run.tag === state.tag;
    return option;
  })));
  return runs;
}

function choose(run) {
  Object.assign(state, { tag: run ? run.tag : null, known: new Map(), open: new Set(), listed: LISTED, turn: state.turn + 1 });
  $("branch").textContent = run ? run.branch : "";
}

async function gather(tag, turn) {
  let cursor, fetched = 0;
  const fresh = state.known.size === 0;
  do {
    const page = await call("history", { tag, limit: PAGE, detail: "full", ...(cursor ? { cursor } : {}) });
    if (turn !== state.turn) return false;
    page.experiments.forEach((e, place) => state.known.set(e.experiment_id, { ...e, n: number(e.experiment_id) || page.total - fetched - place }));
    fetched += page.experiments.length;
    cursor = fresh ? page.next_cursor : null;
  } while (cursor && fetched < CHARTED);
  return true;
}

function say(title, text) {
  $("empty-title").textContent = title;
  $("empty-text").textContent = text;
  $("empty").hidden = false;
  $("main").hidden = true;
}

async function refresh() {
  const runs = await drawRuns();
  if (!runs.length) return say("No research yet", "Ask your agent to set up a run. It will appear here by itself.");
  const { tag, turn } = state;
  const [summary, devices, current] = await Promise.all([call("summary", { tag }), call("devices"), gather(tag, turn)]);
  if (!current || turn !== state.turn) return undefined;
  $("empty").hidden = true;
  $("main").hidden = false;
  const { devices: _, ...shown } = summary;
  const experiments = newestFirst().reverse();
  draw("hero", shown, () => drawHero(summary));
  draw("chart", [experiments, summary.baseline, summary.best, $("chart").clientWidth], () => drawChart(experiments, summary));
  draw("table", experiments, drawTable);
  draw("categories", summary.categories, () => drawCategories(summary.categories));
  draw("devices", devices, () => drawDevices(devices));
  document.title = `${figure(summary.best ? summary.best.value : null)} ${tag} · autoresearch`;
  return drawLogs(experiments.filter((e) => e.status === "training").map((e) => e.experiment_id).reverse());
}

let polling = null;
async function poll() {
  clearTimeout(polling);
  const mine = state.turn;
  try {
    await refresh();
    $("live").className = "live";
    $("live").textContent = `updated ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    $("live").className = "live lost";
    $("live").textContent = error instanceof TypeError ? "server not reachable" : "no data";
    if ($("main").hidden) say(error instanceof TypeError ? "The server is not reachable" : "Not ready yet", error.message);
  }
  clearTimeout(polling);
  polling = setTimeout(poll, mine === state.turn ? POLL_MS : 0);
}

$("legend").replaceChildren(...LOOKS.map(([name, text]) => make("li", {}, make("i", { class: `swatch s-${name}` }), text)));
$("more").addEventListener("click", () => { state.listed += 200; drawTable(); });
$("runs").addEventListener("change", async (event) => {
  location.hash = encodeURIComponent(event.target.value);
  const { runs } = await call("list_runs");
  choose(runs.find((run) => run.tag === event.target.value));
  poll();
});
addEventListener("resize", () => { delete state.drawn.chart; poll(); });
poll();
