// Draws scenes as SVG elements. Text from the model is only ever set as text.

const model = JSON.parse(document.getElementById("model").textContent);
const graph = unpacked(model);
const $ = (id) => document.getElementById(id);
const picture = $("picture"), slider = $("slider"), tip = $("tip");
const state = { folded: new Set(), lanes: new Set(), modules: new Set(), reached: 0, moved: false, pinned: null };
const view = { x: 0, y: 0, k: 1 };
const last = model.sweep.length - 1;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const kept = [];
let drawn = null, world = null, told = new Map(), uses = new Map(), swept = [];

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, given] of Object.entries(attributes)) if (given !== undefined && given !== null && given !== "") made.setAttribute(key, given);
  made.append(...children);
  return made;
}

function tag(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, given] of Object.entries(attributes)) made.setAttribute(key, given);
  made.append(...children);
  return made;
}

const text = (words, x, y, kind) => svg("text", { x: short(x), y: short(y), class: kind }, words);
const rect = (kind, { x, y, w, h }, rx) => svg("rect", { class: kind, x: short(x), y: short(y), width: short(Math.max(0, w)), height: short(Math.max(0, h)), rx });
const colourOf = new Map(model.parameters.map((p) => [p.id, p.colour < 0 ? "" : `p${p.colour % 8}`]));
const parameterOf = new Map(model.parameters.map((p) => [p.id, p]));
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : word.endsWith("x") ? "es" : "s"}`;

// What is told of a thing: a title and rows of two columns, in a tooltip and, in one line, to screen readers.

function ofNode(node) {
  const rows = [];
  const label = (node.label ?? "").split("\n").join(" ") || node.ports.map((port) => port.label).join(" | ") || node.op;
  if (node.op && node.kind !== "cell") rows.push(["operation", node.op]);
  if (node.dtype) rows.push(["shape", node.shape], ["dtype", node.dtype]);
  if (node.norm !== null) rows.push(["gradient norm", exact(node.norm)]);
  if (node.value !== null) rows.push(["value norm", exact(node.value)]);
  for (const port of node.ports) rows.push([port.label, [port.shape, norm(port.norm) === null ? "" : `gradient ${exact(norm(port.norm))}`, norm(port.value) === null ? "" : `value ${exact(norm(port.value))}`].filter(Boolean).join(", ")]);
  for (const id of node.params) {
    const p = parameterOf.get(id), at = node.frame && p.steps.indexOf(node.frame.first), share = at >= 0 && node.frame ? norm(p.shares[at]) : null;
    rows.push(["reads", p.name + (share === null ? "" : `, its gradient from this step ${exact(share)}`)]);
  }
  if (node.cut) rows.push(["cut", "detached: no gradient passes"]);
  if (node.scope) rows.push(["module", node.scope]);
  if (node.source) rows.push(["source", node.source]);
  return [label, rows];
}

function ofEdge({ edge, edges }) {
  const name = (node) => (node.label ?? "").split("\n")[0] || node.op;
  const rows = [["from", name(edge.from)], ["to", name(edge.to)]];
  if (edge.shape) rows.push(["shape", edge.shape]);
  if (edges.length > 1) rows.push(["lines", `${edges.length}, drawn as one: the one worst off, or strongest`]);
  rows.push(["gradient norm", edge.norm !== null ? exact(edge.norm) : edge.level === "u" ? "never asked for" : model.gradients ? "none" : "not computed (gradients=True)"]);
  return [edge.state ? `state ${edge.state}` : "value", rows];
}

function ofParameter(p) {
  const rows = [["shape", p.shape], ["dtype", p.dtype], ["uses", String(p.uses)]];
  if (p.frozen) rows.push(["frozen", "its gradient is not asked for"]);
  if (norm(p.norm) !== null) rows.push(["gradient norm", exact(norm(p.norm))]);
  if (norm(p.value) !== null) rows.push(["value norm", exact(norm(p.value))]);
  return [p.name, rows];
}

function ofRun(run) {
  const rows = [["folded", run.frames.length > 1 ? `${plural(run.frames.length, "step")}${run.same ? ", operand by operand the same" : ""}` : "one step"]];
  for (const rail of run.rails) {
    const [first, end] = [rail.norms[0], rail.norms.at(-1)];
    if (first !== null) rows.push([`${rail.what} of ${rail.name}${rail.lane && new Set(run.rails.map((r) => r.lane)).size > 1 ? `, ${rail.lane}` : ""}`, run.frames.length > 1 ? `${exact(first)} … ${exact(end)}` : exact(first)]);
  }
  return [run.label, [...rows, ["click", "unfolds"]]];
}

function ofBox(box) {
  const rows = [["folded", plural(box.nodes.length, "operation")]];
  for (const node of box.nodes) if (node.state && node.norm !== null) rows.push([`gradient of ${node.state}`, exact(node.norm)]);
  return [box.label ?? `${box.lane.label}, ${box.frame.label}`, [...rows, ["click", "unfolds"]]];
}

const spoken = ([title, rows]) => [title, ...rows.filter(([a]) => a !== "click").map(([a, b]) => `${a} ${b}`)].join(", ");

// Drawing

function draw() {
  const before = told;
  drawn = scene(graph, state, model.folds);
  [told, uses, swept] = [new Map(model.parameters.map((p) => [`chip-${p.id}`, () => ofParameter(p)])), new Map(), [...kept]];
  const groups = new Map(), outer = svg("g"), made = svg("g", { id: "world" });
  const lines = svg("defs", {}, ...[..."1234chbzun"].map((level) => {
    const size = level === "h" || level === "b" ? 11 : level === "3" || level === "4" ? 9 : 7;
    return svg("marker", { id: `a-${level}`, viewBox: "0 0 8 8", refX: 7.4, refY: 4, markerWidth: size, markerHeight: size, markerUnits: "userSpaceOnUse", orient: "auto" }, svg("path", { class: `m${level}`, d: "M0 .8 8 4 0 7.2z" }));
  }));
  for (const placed of drawn.frames) groups.set(placed.frame, frameOf(placed));
  for (const run of drawn.runs) groups.set(run, runOf(run));
  for (const module of drawn.modules) outer.append(moduleOf(module));
  const lanes = drawn.lanes.map(laneOf);
  for (const cell of drawn.cells) groups.get(cell.frame).append(cellOf(cell));
  drawn.edges.forEach((line, k) => {
    const home = line.b?.kind === "run" ? line.b : (line.edge.frame ?? null);
    (groups.get(home) ?? groups.get(line.a) ?? outer).append(edgeOf(line, k));
  });
  for (const placed of drawn.nodes) (groups.get(placed.node.frame) ?? outer).append(nodeOf(placed));
  const order = [...drawn.frames.map((f) => [f.x, groups.get(f.frame)]), ...drawn.runs.map((r) => [r.at.x, groups.get(r)])].sort((a, b) => a[0] - b[0]);
  made.append(...lanes, ...order.map(([, group]) => group), outer);
  if (before.size) for (const element of made.querySelectorAll(".node, .run, .cell, .shut")) if (!before.has(element.id)) element.classList.add("fresh");
  picture.replaceChildren(lines, made);
  world = made;
  overview();
  move();
  sweep();
  light(state.pinned);
}

/** Remember what a thing tells, and when the sweep reaches it. */
function known(element, id, tells, stop, params = []) {
  told.set(id, tells);
  element.id = id;
  element.dataset.tip = id;
  if (stop !== undefined) swept.push([element, stop]);
  for (const param of params) uses.set(param, [...(uses.get(param) ?? []), element]);
  return element;
}

const button = (element, open, label) => {
  for (const [key, given] of [["role", "button"], ["tabindex", 0], ["aria-expanded", open], ["aria-label", label], ["data-fold", ""]]) element.setAttribute(key, given);
  return element;
};
const sign = (x, y, open) => svg("path", { class: "sign", d: `M${short(x - 4)} ${short(y)}h8${open ? "" : `M${short(x)} ${short(y - 4)}v8`}` });

function frameOf(placed) {
  const { frame, x, y, w } = placed, group = svg("g", { class: "step" });
  const head = svg("g", { class: "frame" }, rect("rim", placed, 10), text(frame.label, x + w / 2, y + 18, "head"));
  if (graph.frames.length > 1 && !frame.steps) {
    head.append(sign(x + w / 2 - frame.label.length * 2.6 - 10, y + 14, true), rect("grip", { x, y, w, h: 26 }, 10));
    button(head, true, `${frame.label}, ${plural(frame.nodes.length, "box")}`);
  }
  group.append(known(head, frame.id, () => [frame.label, frame.steps ? [["folded", `${plural(frame.steps, "step")}, too many for this page to open`]] : [["boxes", String(frame.nodes.length)], ["click", "folds"]]]));
  head.act = () => fold([frame]);
  swept.push([head, Object.values(frame.stops), "step"]);
  head.classList.add("step");
  return group;
}

function runOf(run) {
  const { x, y, w, h } = run.at, many = run.frames.length > 1;
  const head = svg("g", { class: "run step" }, rect("rim", run.at, 10), text(run.label, x + w / 2 + 6, y + 18, "head"), sign(x + w / 2 - run.label.length * 2.6 - 8, y + 14, false));
  const across = drawn.nodes.filter((n) => n.node.kind === "bar" && n.y > y && n.y < y + h).map((n) => n.y + n.h / 2);
  const levels = [y + 24, ...run.rails.map((rail) => rail.y), ...across, y + h].sort((a, b) => a - b);
  let middle = y + h / 2, gap = 0;
  for (let k = 1; k < levels.length; k++) if (levels[k] - levels[k - 1] > gap) [gap, middle] = [levels[k] - levels[k - 1], (levels[k] + levels[k - 1]) / 2];
  if (gap > 60 || !run.rails.length) {
    const boxes = run.frames[0].nodes.filter((n) => n.kind !== "input").length;
    const words = many ? [plural(run.frames.length, "step"), ...(run.same ? [`the same ${plural(boxes, "box")}`] : [])] : [plural(boxes, "box")];
    words.forEach((word, k) => head.append(text(word, x + w / 2, middle + 4 + (k - (words.length - 1) / 2) * 13, "mid soft")));
  }
  for (const rail of run.rails) {
    head.append(chartOf(rail.name, rail.norms, { x: x + 10, y: rail.y - 13, w: w - 20, h: 26 }, rail.stops));
  }
  known(head, run.id, () => ofRun(run), undefined, [...new Set(run.frames.flatMap((f) => f.nodes.flatMap((n) => n.params)))]);
  button(head, false, spoken(ofRun(run)));
  swept.push([head, run.frames.flatMap((f) => Object.values(f.stops)), "step"]);
  head.act = () => unfold(run);
  return svg("g", { class: "step" }, head);
}

/** A state on its way through folded steps: its name, and its norms with the first and the last in digits. */
function chartOf(name, norms, at, stops) {
  const middle = at.y + at.h / 2, first = brief(norms[0] ?? null), end = brief(norms.at(-1) ?? null);
  const group = svg("g", { class: "rail" }, rect("box", at, 7), text(name, at.x + 8, middle + 4, "left bold"));
  group.append(text(end, at.x + at.w - 7, middle + 3.5, Number.isFinite(norms.at(-1) ?? 0) ? "right small" : "right small warn"));
  const start = at.x + 14 + name.length * 7, from = start + first.length * 5.4 + 5, to = at.x + at.w - 12 - end.length * 5.4;
  if (norms.length < 2 || to - from < 12) return group;
  group.append(text(first, start, middle + 3.5, "left small"), svg("path", { class: "bars", d: bars(norms, from, middle + 8, to - from, 15) }), ...veil(stops, from, middle - 12, to - from, 23));
  return group;
}

/** A cover over the bars of a chart that the sweep has not reached, and a mark where it is. */
function veil(stops, x, y, width, height) {
  const cover = svg("rect", { class: "veil", x, y, width: 0, height }), mark = svg("path", { class: "cursor", d: "" });
  swept.push([cover, stops, (reached) => {
    const done = stops.map((stop) => stop <= reached), count = done.filter(Boolean).length, step = width / stops.length;
    const backwards = done[0] && !done.at(-1), open = count === stops.length ? 0 : stops.length - count;
    cover.setAttribute("x", short(backwards ? x + count * step : x));
    cover.setAttribute("width", short(open * step));
    const at = reached < last || state.moved ? stops.indexOf(reached) : -1;
    mark.setAttribute("d", at < 0 ? "" : `M${short(x + (at + 0.5) * step)} ${short(y)}v${short(height)}`);
  }]);
  return [cover, mark];
}

function cellOf(cell) {
  const { x, y, w, h } = cell.at, name = cell.lane.label.replace(/ [→←]$/, "").split("/").at(-1);
  const states = cell.nodes.filter((n) => n.state && n.norm !== null && n.kind !== "state").map((n) => `${n.state} ${brief(n.norm)}`);
  const group = svg("g", { class: "cell" }, rect("rim", cell.at, 8), text(name, x + w / 2, y + h / 2 + (states.length ? -2 : 4), "bold"));
  if (states.length) group.append(text(states.join("  "), x + w / 2, y + h / 2 + 11, "small"));
  known(group, cell.id, () => ofBox(cell), cell.frame.stops[cell.nodes[0]?.lane ?? ""], [...new Set(cell.nodes.flatMap((n) => n.params))]);
  group.act = () => toggle(state.lanes, cell.lane);
  return button(group, false, spoken(ofBox(cell)));
}

function laneOf({ lane, x, y, h }) {
  const open = !state.lanes.has(lane), words = lane.label.split("/").slice(-2).join("/"), wide = words.length * 5.2 + 20;
  const group = svg("g", { class: "lane" }, text(words, x - 20, y + h - 6, "right small soft"), sign(x - 12, y + h - 9, open), rect("grip", { x: x - 12 - wide, y: y + h - 19, w: wide + 8, h: 20 }));
  group.act = () => toggle(state.lanes, lane);
  known(group, lane.id, () => [lane.label, [["click", open ? "folds this layer in every step" : "unfolds this layer"]]]);
  return button(group, open, `layer ${lane.label}`);
}

function moduleOf(box) {
  const { x, y, w, h } = box.at, open = box.kind === "open", name = box.label.split("/").slice(-2).join("/");
  const group = svg("g", { class: open ? "module" : "module shut" }, rect("rim", box.at, 8));
  if (open) group.append(text(name, x + 8, y + 13, "left small soft"), sign(x + w - 10, y + 10, true), rect("grip", { x, y, w, h: 20 }));
  else group.append(text(box.label.split("/").at(-1), x + w / 2, y + h / 2 + 1, "bold"), text(moduleWords(box.nodes), x + w / 2, y + h / 2 + 13, "small soft"), sign(x + w - 10, y + 10, false));
  known(group, box.id, open ? () => [box.label, [["operations", String(box.nodes.length)], ["click", "folds"]]] : () => ofBox(box), undefined, open ? [] : [...new Set(box.nodes.flatMap((n) => n.params))]);
  group.act = () => toggle(state.modules, box.module);
  return button(group, open, `module ${box.label}, ${plural(box.nodes.length, "operation")}`);
}

function edgeOf(line, k) {
  const { edge, points, d } = line;
  const group = svg("g", { class: `edge ${edge.kind} l${edge.level}` }, svg("path", { d, "marker-end": `url(#a-${edge.level})` }), svg("path", { class: "hit", d }));
  const words = edge.level === "b" ? brief(edge.norm) : edge.label;
  if (words) {
    let [wide, at] = [0, null];
    for (let j = 1; j < points.length; j++) {
      const span = Math.abs(points[j][0] - points[j - 1][0]);
      if (span >= wide) [wide, at] = [span, [(points[j][0] + points[j - 1][0]) / 2, (points[j][1] + points[j - 1][1]) / 2 - 5]];
    }
    if (edge.kind === "loop" || edge.level === "b" || wide > words.length * 5 + 6) group.append(text(words, at[0], at[1], edge.level === "b" ? "small warn" : "small soft"));
  }
  return known(group, `line${k}`, () => ofEdge(line), edge.to.stop);
}

function nodeOf(placed) {
  const { node, x, y, w, h } = placed, middle = x + w / 2;
  const colour = node.params.map((id) => colourOf.get(id)).find(Boolean);
  const kind = ["node", node.kind === "state" ? "start" : node.kind, node.state && ["op", "split"].includes(node.kind) ? "state" : "", node.params.length ? "used" : "", colour].filter(Boolean).join(" ");
  const round = node.kind === "input" || node.kind === "state" || Math.abs(w - h) < 1;
  const group = svg("g", { class: kind, tabindex: 0, role: "img" }, node.kind === "rail" ? chartOf(node.state ?? "", node.series ?? [], placed, (node.series ?? []).map(() => node.stop)) : rect("box", placed, round ? h / 2 : 7));
  if (node.kind === "output") group.append(rect("box", { x: x + 3, y: y + 3, w: w - 6, h: h - 6 }, 5));
  if (node.ports.length) {
    for (const port of node.ports) {
      const left = x + port.x - port.w / 2;
      if (left > x + 1) group.append(svg("path", { d: `M${short(left)} ${short(y)}v${short(h)}` }));
      group.append(text(port.label, x + port.x, y + h / 2 + 4));
    }
  } else if (node.kind !== "rail") {
    const lines = (node.label ?? "").split("\n"), main = lines.length;
    if (["op", "cell"].includes(node.kind) && (node.state || node.kind === "cell")) {
      if (node.norm !== null) lines.push(brief(node.norm));
      else if (node.value !== null) lines.push(`‖${brief(node.value)}‖`);
    }
    lines.forEach((word, j) => group.append(text(word, middle, y + h / 2 + 4 + (j - (lines.length - 1) / 2) * 12.5, j >= main ? (Number.isFinite(node.norm ?? 0) ? "small" : "small warn") : node.kind === "input" || node.kind === "fold" ? "mid" : "")));
  }
  group.setAttribute("aria-label", spoken(ofNode(node)));
  return known(group, node.id, () => ofNode(node), node.stop, node.params);
}
