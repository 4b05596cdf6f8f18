"use strict";

// The model, and what there is to draw of it when some of it is folded. Nothing here touches the page.

const MOST = 1500; // boxes that are drawn at a time
const SLACK = 0.3; // places are rounded
const ENDS = 20; // steps that a fold too long to open whole opens at each end

function value(slot, k, time) {
  if (slot === null || typeof slot !== "object" || Array.isArray(slot)) return slot;
  if ("*" in slot) return slot["*"][k] ?? undefined;
  if ("~" in slot) return slot["~"].slice(1).join(String(Number(time) + slot["~"][0]));
  return expand(slot["{"], k, time);
}

function expand(slot, k = 0, time = "") {
  return Object.fromEntries(Object.entries(slot).map(([name, given]) => [name, value(given, k, time)]));
}

const norm = (given) => (given === undefined || given === null ? null : Number(given));

/** Steps, nodes and edges of the packed model, in their places when nothing is folded. */
function unpacked(model) {
  const frames = new Array(model.blocks.length), nodes = new Map(), edges = [];
  const addNode = (node, frame, stop) => {
    node.x += frame ? frame.x : 0;
    node.frame = frame;
    node.norm = norm(node.norm);
    node.value = norm(node.value);
    node.params ??= [];
    if (node.series) node.series = node.series.map(norm);
    node.stop = stop;
    node.ports = [];
    for (let j = 0; node["p" + j]; j++) node.ports.push(node["p" + j]);
    nodes.set(node.id, node);
    if (frame) frame.nodes.push(node);
  };
  const addEdge = (edge, frame) => {
    const left = frame ? frame.x : 0, points = [];
    for (let j = 0; j < edge.at.length; j += 2) points.push([edge.at[j] + left, edge.at[j + 1]]);
    edges.push(Object.assign(edge, { points, frame, norm: norm(edge.norm) }));
  };
  for (const stamp of model.stamps) {
    stamp.frames.forEach((index, k) => {
      const time = stamp.times[k];
      const frame = Object.assign(expand(stamp.frame, k, time), { index, stamp, block: model.blocks[index], nodes: [], stops: stamp.stops[k] });
      frames[index] = frame;
      for (const slot of stamp.nodes) {
        const node = expand(slot, k, time);
        addNode(node, frame, frame.stops[node.lane ?? ""]);
      }
    });
  }
  for (const stamp of model.stamps) {
    stamp.frames.forEach((index, k) => {
      for (const slot of stamp.edges) addEdge(expand(slot, k, stamp.times[k]), frames[index]);
    });
  }
  for (const node of model.nodes) addNode(node, null, node.stop);
  for (const edge of model.edges) addEdge(edge, null);
  for (const edge of edges) {
    edge.from = nodes.get(edge.tail);
    edge.to = nodes.get(edge.head);
  }
  const lanes = model.lanes.map((lane) => ({ ...lane, frames: frames.filter((f) => f.x >= lane.x - 1 && f.x + f.w <= lane.x + lane.w + 1) }));
  for (const lane of lanes) {
    for (const frame of lane.frames) {
      for (const node of frame.nodes) if (node.y >= lane.y && node.y <= lane.y + lane.h) node.row = lane;
    }
  }
  const modules = model.modules.map((module) => ({ ...module, nodes: module.nodes.map((id) => nodes.get(id)).filter(Boolean) }));
  for (const module of modules) for (const node of module.nodes) node.module = module;
  return { frames, byId: nodes, nodes: [...nodes.values()], edges: edges.filter((e) => e.from && e.to && e.points.length > 1), lanes, modules };
}

/** Runs of folded steps that stand side by side and are of one kind. */
function runsOf(graph, folded, folds) {
  const home = new Map();
  folds.forEach(([a, b], which) => { for (let k = a; k <= b; k++) home.set(k, which); });
  const runs = [];
  for (const frame of graph.frames) {
    if (!folded.has(frame.index)) continue;
    const run = runs.at(-1), last = run && run.frames.at(-1);
    if (run && last.index === frame.index - 1 && last.block === frame.block && home.get(last.index) === home.get(frame.index)) run.frames.push(frame);
    else runs.push({ kind: "run", frames: [frame], same: home.has(frame.index) });
  }
  for (const run of runs) {
    const [a, b] = [run.frames[0], run.frames.at(-1)];
    run.id = run.frames.length > 1 ? `fold-${a.id}-${b.id}` : a.id;
    run.label = run.frames.length > 1 ? `${a.label} … ${b.label.replace("t = ", "")}` : a.label;
    Object.assign(run, { x: a.x, end: b.x + b.w, y: a.y, h: a.h, w: Math.min(b.x + b.w - a.x, run.frames.length > 1 ? 190 : 96) });
  }
  return runs;
}

/** Where a coordinate goes when stretches of its axis change their lengths. What is in a stretch goes to its middle, or keeps its share. */
function mapping(spans, share) {
  spans.sort((a, b) => a.from - b.from);
  return (at) => {
    let shift = 0;
    for (const { from, to, size } of spans) {
      if (at >= to - SLACK) shift += size - (to - from);
      else if (at > from + SLACK) return from + shift + (share ? ((at - from) / (to - from)) * size : size / 2);
      else break;
    }
    return at + shift;
  };
}

const inside = (r, [x, y]) => x >= r.x - 0.1 && x <= r.x + r.w + 0.1 && y >= r.y - 0.1 && y <= r.y + r.h + 0.1;

/** The part of a line after it has left a rectangle, or the line from there on; null if it never leaves. */
function leaving(points, r) {
  for (let k = points.length - 1; k >= 0; k--) {
    if (!inside(r, points[k])) continue;
    if (k === points.length - 1) return null;
    const [a, b] = points[k], [x, y] = points[k + 1], dx = x - a, dy = y - b;
    let t = 1;
    if (dx) t = Math.min(t, ((dx > 0 ? r.x + r.w : r.x) - a) / dx);
    if (dy) t = Math.min(t, ((dy > 0 ? r.y + r.h : r.y) - b) / dy);
    t = Math.max(0, t);
    return [[a + dx * t, b + dy * t], ...points.slice(k + 1)];
  }
  const [x, y] = points[0];
  return [[Math.max(r.x, Math.min(r.x + r.w, x)), Math.max(r.y, Math.min(r.y + r.h, y))], ...points];
}

const entering = (points, r) => leaving([...points].reverse(), r)?.reverse() ?? null;

/** Everything in its place, with what is folded as one box each. */
function scene(graph, state, folds) {
  const runs = runsOf(graph, state.folded, folds), runOf = new Map();
  for (const run of runs) for (const frame of run.frames) runOf.set(frame, run);
  const spans = runs.map((run) => ({ from: run.x, to: run.end, size: run.w }));
  for (const module of graph.modules) {
    if (state.modules.has(module) && alone(graph, module)) spans.push({ from: module.x, to: module.x + module.w, size: Math.min(module.w, moduleWidth(module)) });
  }
  const mx = mapping(spans, false);
  const my = mapping([...state.lanes].map((lane) => ({ from: lane.y, to: lane.y + lane.h, size: laneHeight(graph, lane) })), true);
  const placed = (r, x = r.x, end = r.x + r.w) => ({ x: mx(x), y: my(r.y), w: mx(end) - mx(x), h: my(r.y + r.h) - my(r.y) });
  for (const run of runs) run.at = placed(run, run.x, run.end);
  const cells = new Map(), boxes = new Map();
  for (const module of graph.modules) if (state.modules.has(module)) boxes.set(module, { kind: "module", id: module.id, module, label: module.label, nodes: module.nodes, at: placed(module) });
  const region = (node) => {
    if (node.frame && runOf.has(node.frame)) return runOf.get(node.frame);
    if (node.row && state.lanes.has(node.row)) {
      const key = `${node.frame.id} ${node.row.id}`;
      if (!cells.has(key)) {
        const r = placed(node.row, node.frame.x, node.frame.x + node.frame.w), at = { x: r.x + 18, y: r.y + 6, w: r.w - 36, h: r.h - 10 };
        cells.set(key, { kind: "cell", id: `${node.frame.id}-${node.row.id}`, lane: node.row, frame: node.frame, nodes: [], at });
      }
      return cells.get(key);
    }
    return boxes.get(node.module) ?? null;
  };
  const made = { runs, cells: [], modules: [], frames: [], nodes: [], edges: [], lanes: [], mx, my };
  for (const node of graph.nodes) {
    const home = region(node);
    if (home && home.kind === "cell") home.nodes.push(node);
    if (home) continue;
    const [left, right] = node.kind === "bar" ? [mx(node.x - node.w / 2), mx(node.x + node.w / 2)] : [mx(node.x) - node.w / 2, mx(node.x) + node.w / 2];
    made.nodes.push({ node, x: left, y: my(node.y) - node.h / 2, w: right - left, h: node.h });
  }
  made.cells = [...cells.values()];
  made.frames = graph.frames.filter((f) => !runOf.has(f)).map((frame) => ({ frame, ...placed(frame) }));
  made.lanes = graph.lanes.map((lane) => ({ lane, ...placed(lane) }));
  made.modules = graph.modules.map((module) => boxes.get(module) ?? { kind: "open", id: module.id, module, label: module.label, nodes: module.nodes, at: placed(module) });
  for (const run of runs) run.rails = railsOf(run, my);
  const seen = new Map();
  for (const edge of graph.edges) {
    const [a, b] = [region(edge.from), region(edge.to)];
    if (a && a === b) continue;
    let points = edge.points.map(([x, y]) => [mx(x), my(y)]);
    if (a) points = leaving(points, a.at);
    if (b && points) points = entering(points, b.at);
    if (!points || points.length < 2) continue;
    const d = path(points);
    if (!a && !b) {
      made.edges.push({ edges: [edge], edge, points, d });
      continue;
    }
    const key = `${a ? a.id : edge.tail}>${b ? b.id : edge.head}>${d}`, found = seen.get(key);
    if (found) found.edges.push(edge);
    else {
      const drawn = { edges: [edge], edge, points, d, a, b };
      seen.set(key, drawn);
      made.edges.push(drawn);
    }
  }
  // Of lines that are drawn as one, the one that is worst off, or else the strongest, is shown.
  for (const drawn of seen.values()) drawn.edge = drawn.edges.reduce((a, b) => ("bhc4321znu".indexOf(a.level) <= "bhc4321znu".indexOf(b.level) ? a : b));
  made.box = bounds(made);
  return made;
}

const moduleWords = (nodes) => (nodes.length > 3 ? `${nodes.length} operations` : nodes.map((n) => (n.label || n.op).split(" ")[0]).join(", "));
const moduleWidth = (module) => Math.max(64, module.label.split("/").at(-1).length * 7 + 40, moduleWords(module.nodes).length * 5 + 16);

/** Whether nothing else stands above or below a module, so that its place can shrink. */
function alone(graph, module) {
  const apart = (x, w) => x + w <= module.x || x >= module.x + module.w;
  return graph.frames.every((f) => apart(f.x, f.w)) && graph.nodes.every((n) => n.frame || n.module === module || apart(n.x - n.w / 2, n.w));
}

/** The height of a folded lane: as low as what stands beside it allows. */
function laneHeight(graph, lane) {
  const apart = (y, h) => y + h <= lane.y || y >= lane.y + lane.h;
  if (!graph.frames.every((f) => lane.frames.includes(f) || apart(f.y, f.h))) return lane.h;
  const beside = graph.nodes.filter((n) => !n.frame && !apart(n.y, 0));
  let size = 58;
  beside.forEach((a, k) => beside.slice(k + 1).forEach((b) => {
    if (a.y !== b.y && Math.abs(a.x - b.x) < (a.w + b.w) / 2) size = Math.max(size, (lane.h * ((a.h + b.h) / 2 + 6)) / Math.abs(a.y - b.y));
  }));
  return Math.min(lane.h, size);
}

/** The states that run through folded steps, with the norms at each of their gradients, or of their values where there are no gradients. */
function railsOf(run, my) {
  const rails = new Map();
  for (const frame of run.frames) {
    for (const node of frame.nodes) {
      if (!(node.state && ["op", "split"].includes(node.kind)) && node.kind !== "cell") continue;
      const key = `${node.lane ?? ""}|${node.state ?? node.id.replace(frame.id, "")}`;
      if (!rails.has(key)) rails.set(key, { name: node.state ?? node.label.split("\n")[0].replace(/ ?\d+$/, ""), lane: node.lane ?? "", y: my(node.y), series: new Map(), values: new Map() });
      rails.get(key).series.set(frame, node.norm);
      rails.get(key).values.set(frame, node.value);
    }
  }
  return [...rails.values()].map((rail) => {
    const gradients = run.frames.map((frame) => rail.series.get(frame) ?? null), known = gradients.some((v) => v !== null);
    const norms = known ? gradients : run.frames.map((frame) => rail.values.get(frame) ?? null);
    return { ...rail, norms, what: known ? "gradient" : "value", stops: run.frames.map((frame) => frame.stops[rail.lane]) };
  });
}

function bounds(made) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  const add = (x, y, w = 0, h = 0) => {
    left = Math.min(left, x); top = Math.min(top, y); right = Math.max(right, x + w); bottom = Math.max(bottom, y + h);
  };
  for (const { x, y, w, h } of [...made.nodes, ...made.frames, ...made.runs.map((r) => r.at), ...made.modules.map((m) => m.at)]) add(x, y, w, h);
  for (const { points } of made.edges) if (points.length > 2) for (const [x, y] of points) add(x, y);
  for (const { lane, x, y, h } of made.lanes) add(x - Math.min(30, lane.label.length) * 5.5 - 26, y + h - 12);
  return left < right ? { x: left, y: top, w: right - left, h: bottom - top } : { x: 0, y: 0, w: 100, h: 60 };
}

const short = (v) => String(Math.round(v * 10) / 10);

/** A path through points, its corners rounded. */
function path(points) {
  let d = `M${short(points[0][0])} ${short(points[0][1])}`;
  for (let k = 1; k < points.length - 1; k++) {
    const [[a, b], [x, y], [p, q]] = [points[k - 1], points[k], points[k + 1]];
    const before = Math.hypot(x - a, y - b), after = Math.hypot(p - x, q - y), r = Math.min(6, before / 2, after / 2);
    if (r < 0.5) d += `L${short(x)} ${short(y)}`;
    else d += `L${short(x - ((x - a) / before) * r)} ${short(y - ((y - b) / before) * r)}Q${short(x)} ${short(y)} ${short(x + ((p - x) / after) * r)} ${short(y + ((q - y) / after) * r)}`;
  }
  return d + `L${short(points.at(-1)[0])} ${short(points.at(-1)[1])}`;
}

/** Norms as small bars on a logarithmic scale, whose foot is at y. NaN and infinity reach over the top. */
function bars(norms, x, y, width, height) {
  const most = Math.max(1, Math.floor(width / 3)), count = Math.min(norms.length, most), row = [];
  for (let k = 0; k < count; k++) {
    const part = norms.slice(Math.floor((k * norms.length) / count), Math.max(Math.floor((k * norms.length) / count) + 1, Math.floor(((k + 1) * norms.length) / count))).filter((v) => v !== null);
    row.push(part.length ? part.reduce((a, b) => (Number.isNaN(a) || a >= b ? a : b)) : null);
  }
  const finite = row.filter((v) => v !== null && v > 0 && v < Infinity);
  const high = finite.length ? Math.log10(Math.max(...finite)) : 0, low = finite.length ? Math.max(Math.log10(Math.min(...finite)), high - 12) : high;
  const span = Math.max(high - low, 1), step = width / Math.max(1, count), wide = Math.max(0.8, step - Math.min(1, step / 4));
  return row.map((v, k) => {
    if (v === null) return "";
    const tall = !(v < Infinity) ? height + 3 : v === 0 ? 0.6 : Math.max(1, height * (0.12 + (0.88 * (Math.log10(v) - high + span)) / span));
    return `M${short(x + k * step)} ${short(y)}v${short(-tall)}h${short(wide)}v${short(tall)}z`;
  }).join("");
}

/** A norm in a few characters: 4e-11, 0.12, ∞. */
function brief(v) {
  if (v === null) return "";
  if (Number.isNaN(v)) return "NaN";
  if (!Number.isFinite(v)) return v > 0 ? "∞" : "−∞";
  if (v === 0) return "0";
  if (Math.abs(v) >= 0.01 && Math.abs(v) < 1000) return Math.abs(v) < 100 ? String(Number(v.toPrecision(2))) : v.toFixed(0);
  return v.toExponential(0).replace("e+", "e");
}

const exact = (v) => (Number.isFinite(v) && v !== 0 && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5) ? v.toExponential(2).replace("e+", "e") : Number.isFinite(v) ? String(Number(v.toPrecision(3))) : brief(v));
