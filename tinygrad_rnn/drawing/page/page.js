// The page: folding, moving, the sweep of the gradient, parameters, and what the pointer and the keyboard do.

// Folding

const count = () => graph.frames.reduce((sum, f) => sum + (state.folded.has(f.index) ? 0 : f.nodes.length), 0);

function fold(frames) {
  for (const frame of frames) state.folded.add(frame.index);
  redraw(frames[0]);
}

function unfold(run) {
  const boxes = run.frames.reduce((sum, f) => sum + f.nodes.length, 0), whole = count() + boxes <= MOST;
  const opened = whole ? run.frames : [...run.frames.slice(0, ENDS), ...run.frames.slice(-ENDS)];
  for (const frame of opened) state.folded.delete(frame.index);
  redraw(run.frames[0], whole ? "" : `${ENDS} steps opened at each end: more at a time would be slow. Click again for more.`);
}

function toggle(set, thing) {
  if (!set.delete(thing)) set.add(thing);
  redraw(thing);
}

/** Fold all steps but the first and last two of each block, all of them where there are no more; modules where there are no steps. */
function foldAll() {
  if (graph.frames.length < 2) for (const module of graph.modules) state.modules.add(module);
  for (const block of new Set(model.blocks)) {
    const frames = graph.frames.filter((f) => f.block === block);
    for (const frame of frames.length > 4 ? frames.slice(2, -2) : frames) if (!frame.steps) state.folded.add(frame.index);
  }
  redraw();
  fit();
}

function unfoldAll() {
  state.lanes.clear();
  state.modules.clear();
  const hidden = graph.frames.filter((f) => state.folded.has(f.index));
  let left = 0, right = hidden.length - 1, boxes = count();
  for (let k = 0; left <= right; k++) {
    const frame = k % 2 ? hidden[right--] : hidden[left++];
    boxes += frame.nodes.length;
    if (boxes > MOST) break;
    state.folded.delete(frame.index);
  }
  redraw();
  fit();
}

/** Draw again; the left end of what was folded stays where it is on the screen. */
function redraw(anchor, words = "") {
  const place = () => (anchor ? view.x + view.k * drawn.mx(anchor.x) : 0), down = () => (anchor ? view.y + view.k * drawn.my(anchor.y) : 0);
  const [x, y] = [place(), down()];
  const focused = picture.contains(document.activeElement);
  draw();
  view.x += x - place();
  view.y += y - down();
  move();
  if (anchor && focused) $(drawn.runs.find((run) => run.frames.includes(anchor))?.id ?? anchor.id)?.focus({ preventScroll: true });
  tell(words);
}

function tell(words) {
  const steps = drawn.runs.reduce((sum, run) => sum + run.frames.length, 0);
  const closed = graph.frames.reduce((sum, f) => sum + (f.steps ?? 0), 0);
  const folded = closed ? `${plural(closed, "step")} folded: too many for this page to open` : steps ? `${plural(steps, "step")} of ${graph.frames.length} folded: click one to open it` : "";
  $("status").textContent = [words, folded, ...model.notes].filter(Boolean).join(" · ");
  $("fold").disabled = graph.frames.length < 2 && !graph.modules.length;
  $("unfold").disabled = !steps && !state.lanes.size && !state.modules.size;
}

// Moving and zooming

const LEAST = 0.5;

function move() {
  world.setAttribute("transform", `translate(${view.x.toFixed(2)} ${view.y.toFixed(2)}) scale(${view.k.toFixed(4)})`);
  const { x, y, w, h } = drawn.box, window = $("window"), [wide, tall] = [picture.clientWidth, picture.clientHeight];
  const seen = { x: -view.x / view.k, y: -view.y / view.k, w: wide / view.k, h: tall / view.k };
  $("overview").toggleAttribute("hidden", seen.x <= x + 1 && seen.y <= y + 1 && seen.x + seen.w >= x + w - 1 && seen.y + seen.h >= y + h - 1);
  for (const [name, given] of [["x", seen.x], ["y", seen.y], ["width", seen.w], ["height", seen.h]]) window?.setAttribute(name, short(given));
}

/** The whole picture, small, with the part that the window shows. */
function overview() {
  const { x, y, w, h } = drawn.box, map = $("overview"), wide = Math.min(260, (80 * w) / h), tall = Math.max(22, Math.min(80, (wide * h) / w));
  for (const [name, given] of [["viewBox", `${x} ${y} ${w} ${h}`], ["width", short(wide)], ["height", short(tall)]]) map.setAttribute(name, given);
  const places = [...drawn.frames, ...drawn.runs.map((run) => run.at), ...drawn.modules.map((module) => module.at), ...drawn.nodes.filter((n) => !n.node.frame)];
  map.replaceChildren(...places.map((place) => rect("", place)), svg("rect", { id: "window" }));
}

/** Show the middle of what the pointer is on in the overview. */
function look(event) {
  const r = $("overview").getBoundingClientRect(), { x, y, w, h } = drawn.box, k = Math.min(r.width / w, r.height / h);
  view.x = picture.clientWidth / 2 - view.k * (x + w / 2 + (event.clientX - r.left - r.width / 2) / k);
  view.y = picture.clientHeight / 2 - view.k * (y + h / 2 + (event.clientY - r.top - r.height / 2) / k);
  move();
}

function zoom(factor, x = picture.clientWidth / 2, y = picture.clientHeight / 2) {
  const k = Math.min(4, Math.max(0.02, view.k * factor));
  view.x = x - ((x - view.x) * k) / view.k;
  view.y = y - ((y - view.y) * k) / view.k;
  view.k = k;
  move();
}

/** Show all of it; at first, where it would be too small to read, from the end where the loss is. */
function fit(first = false) {
  const { x, y, w, h } = drawn.box, [wide, tall] = [picture.clientWidth, picture.clientHeight], room = 18;
  view.k = Math.min(1.6, (wide - 2 * room) / w, (tall - 2 * room) / h);
  if (first && view.k < LEAST) view.k = Math.max(view.k, Math.min(0.62, (tall - 2 * room) / h));
  view.x = w * view.k > wide ? wide - room - (x + w) * view.k : (wide - w * view.k) / 2 - x * view.k;
  view.y = (tall - h * view.k) / 2 - y * view.k;
  move();
}

/** Bring an element into the window. */
function reveal(element) {
  const r = element.getBoundingClientRect(), p = picture.getBoundingClientRect();
  const over = (a, b, low, high) => (b - a > high - low || a < low + 12 ? low + 12 - a : b > high - 12 ? high - 12 - b : 0);
  if (r.left >= p.left && r.right <= p.right && r.top >= p.top && r.bottom <= p.bottom) return;
  view.x += over(r.left, r.right, p.left, p.right);
  view.y += r.height > p.height ? 0 : over(r.top, r.bottom, p.top, p.bottom);
  move();
}

// The sweep of the gradient

function sweep() {
  const reached = state.reached;
  for (const [element, stops, kind] of swept) {
    if (typeof kind === "function") kind(reached);
    else if (kind === "step") {
      element.classList.toggle("now", model.gradients && state.moved && stops.includes(reached));
      if (element.classList.contains("run")) element.classList.toggle("later", model.gradients && !stops.some((stop) => stop <= reached));
    } else element.classList.toggle("later", model.gradients && stops > reached);
  }
}

function states(reached) {
  const found = [];
  for (const frame of graph.frames) {
    if (!Object.values(frame.stops).includes(reached)) continue;
    for (const node of frame.nodes) if ((node.state || node.kind === "cell") && node.stop === reached && node.norm !== null && node.kind !== "state") found.push(`${(node.label ?? "").split("\n")[0].split(" ").at(-1) || node.state} ${exact(node.norm)}`);
  }
  return found;
}

function reach(reached, look = true) {
  state.reached = Math.max(0, Math.min(last, reached));
  state.moved = true;
  slider.value = last - state.reached;
  sweep();
  said();
  const now = look && picture.querySelector(".step.now > .rim");
  if (now) reveal(now);
}

function said() {
  const where = state.reached ? model.sweep[state.reached] : "at the loss", norms = states(state.reached);
  $("readout").textContent = [where, norms.length ? `gradient norm ${norms.slice(0, 6).join(", ")}` : ""].filter(Boolean).join(": ");
  slider.setAttribute("aria-valuetext", $("readout").textContent);
}

let playing = 0;
function play() {
  if (playing) return stop();
  if (state.reached === last) reach(0);
  $("play").textContent = "❚❚";
  playing = setInterval(() => {
    reach(state.reached + 1);
    if (state.reached === last) stop();
  }, Math.max(40, Math.min(450, 6000 / last)));
}

function stop() {
  clearInterval(playing);
  playing = 0;
  $("play").textContent = "▶";
}

// Parameters

/** Light the uses of parameters, and these; `alone` makes all else faint. */
function light(ids, alone = true) {
  for (const element of document.querySelectorAll(".lit")) element.classList.remove("lit");
  picture.classList.toggle("lighting", alone && Boolean(ids?.length));
  for (const id of ids ?? []) {
    $(`chip-${id}`)?.classList.add("lit");
    for (const element of uses.get(id) ?? []) element.classList.add("lit");
  }
}

function chip(p) {
  const made = tag("button", { type: "button", class: `chip ${colourOf.get(p.id)}`, id: `chip-${p.id}`, "data-param": p.id, "aria-pressed": "false", "aria-label": spoken(ofParameter(p)) });
  const size = norm(p.norm) === null ? "" : brief(norm(p.norm));
  const end = tag("em", {}, size);
  if (size && !Number.isFinite(norm(p.norm))) end.style.color = "var(--hot)";
  made.append(tag("span", {}, tag("b", {}, p.symbol), tag("i", {}, `${p.shape}  ×${p.uses}${p.frozen ? "  frozen" : ""}`), end), tag("small", {}, p.name));
  const steps = p.steps.map((step, k) => [step, norm(p.shares[k])]).filter(([step]) => step);
  if (steps.length) {
    const stopAt = new Map();
    for (const f of graph.frames) for (const n of f.nodes) if (n.params.includes(p.id)) stopAt.set(f.first, n.stop);
    const chart = svg("svg", { viewBox: "0 0 178 17", "aria-hidden": "true" }, svg("path", { class: "bars", d: bars(steps.map(([, share]) => share), 0, 16, 178, 13) }));
    chart.append(...veil(steps.map(([step]) => stopAt.get(step) ?? 0), 0, 0, 178, 17));
    kept.push(swept.pop());
    made.append(chart);
  } else made.classList.add("plainchip");
  made.addEventListener("click", () => {
    const on = state.pinned?.[0] === p.id ? null : [p.id];
    state.pinned = on;
    for (const other of document.querySelectorAll(".chip")) other.setAttribute("aria-pressed", String(Boolean(on) && other === made));
    light(on);
  });
  return made;
}

// The tooltip

function show(id, x, y, above) {
  const tells = told.get(id);
  if (!tells) return hide();
  const [title, rows] = tells();
  const table = tag("table", {}, ...rows.map(([name, words]) => tag("tr", {}, tag("th", {}, name), tag("td", /NaN|∞/.test(words) ? { class: "bad" } : {}, words))));
  tip.replaceChildren(tag("b", {}, title), table);
  tip.hidden = false;
  const { offsetWidth: w, offsetHeight: h } = tip;
  tip.style.left = `${Math.max(8, Math.min(innerWidth - w - 8, x + 14))}px`;
  tip.style.top = `${Math.max(8, above || y + 18 + h + 8 > innerHeight ? y - h - 12 : y + 18)}px`;
}

const hide = () => { tip.hidden = true; };

/** What a pointer is on, or the focus: its tooltip, and the parameters that it has to do with. */
function point(element, x, y) {
  const target = element?.closest?.("[data-tip], .chip");
  if (!target) {
    hide();
    return light(state.pinned);
  }
  const below = "param" in target.dataset;
  show(target.dataset.tip ?? target.id, x, below ? $("parameters").getBoundingClientRect().top : y, below);
  const ids = target.dataset.param ? [target.dataset.param] : (graph.byId.get(target.id)?.params ?? []);
  light(ids.length ? ids : state.pinned, !ids.length || below);
}

document.addEventListener("pointermove", (event) => { if (!drag.moved) point(event.target, event.clientX, event.clientY); });
document.addEventListener("pointerleave", hide);
document.addEventListener("focusin", (event) => {
  const target = event.target;
  if (!target.matches?.("#picture [tabindex], .chip") || !target.matches(":focus-visible")) return;
  if (picture.contains(target)) reveal(target);
  const r = target.getBoundingClientRect();
  point(target, r.left + r.width / 2, r.bottom - 12);
});
document.addEventListener("focusout", () => point(null));

// Pointer: a drag moves, two fingers zoom, a click folds.

const drag = { pointers: new Map(), moved: false };
picture.addEventListener("pointerdown", (event) => {
  drag.pointers.set(event.pointerId, [event.clientX, event.clientY]);
  drag.moved = false;
  drag.start = [event.clientX, event.clientY];
});
picture.addEventListener("pointermove", (event) => {
  const before = drag.pointers.get(event.pointerId);
  if (!before) return;
  const now = [event.clientX, event.clientY];
  if (!drag.moved && Math.hypot(now[0] - drag.start[0], now[1] - drag.start[1]) < 4) return;
  if (!drag.moved) {
    drag.moved = true;
    picture.setPointerCapture(event.pointerId);
    picture.classList.add("dragging");
    hide();
  }
  const other = [...drag.pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) {
    const { left, top } = picture.getBoundingClientRect();
    zoom(Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])), other[0] - left, other[1] - top);
  } else {
    view.x += now[0] - before[0];
    view.y += now[1] - before[1];
    move();
  }
  drag.pointers.set(event.pointerId, now);
});
for (const end of ["pointerup", "pointercancel"]) picture.addEventListener(end, (event) => {
  drag.pointers.delete(event.pointerId);
  picture.classList.remove("dragging");
});
picture.addEventListener("click", (event) => {
  const target = event.target.closest("[data-fold]");
  if (target && !drag.moved) act(target);
  drag.moved = false;
});
picture.addEventListener("wheel", (event) => {
  event.preventDefault();
  hide();
  const { left, top } = picture.getBoundingClientRect(), scale = event.deltaMode ? 30 : 1;
  if (event.shiftKey || (Math.abs(event.deltaX) > Math.abs(event.deltaY) && !event.ctrlKey)) {
    view.x -= (event.deltaX || event.deltaY) * scale;
    move();
  } else zoom(Math.exp(-Math.max(-200, Math.min(200, event.deltaY * scale)) * (event.ctrlKey ? 0.01 : 0.0016)), event.clientX - left, event.clientY - top);
}, { passive: false });

function act(target) {
  hide();
  target.act();
}

// Keyboard

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.metaKey || event.ctrlKey) return;
  const target = event.target.closest("[data-fold]"), arrow = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (target && (event.key === "Enter" || event.key === " ")) act(target);
  else if (arrow && (event.shiftKey || !model.gradients || arrow[1]) && event.target !== slider) {
    view.x += arrow[0] * 60;
    view.y += arrow[1] * 60;
    move();
  } else if (arrow && event.target !== slider) reach(state.reached + arrow[0]);
  else if (event.key === "+" || event.key === "=") zoom(1.25);
  else if (event.key === "-") zoom(0.8);
  else if (event.key === "0") fit();
  else if (event.key === "Escape") {
    hide();
    $("help").open = false;
    stop();
  } else return;
  event.preventDefault();
});

// Controls

const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const named = () => { $("theme").textContent = dark() ? "Light" : "Dark"; };
$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  named();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", named);
$("in").addEventListener("click", () => zoom(1.25));
$("out").addEventListener("click", () => zoom(0.8));
$("fit").addEventListener("click", () => fit());
$("fold").addEventListener("click", foldAll);
$("unfold").addEventListener("click", unfoldAll);
$("play").addEventListener("click", play);
slider.addEventListener("input", () => reach(last - Number(slider.value)));
addEventListener("resize", move);
for (const kind of ["pointerdown", "pointermove"]) $("overview").addEventListener(kind, (event) => { if (event.buttons) look(event); });

// Begin: what the picture came with folded is folded, and more where the whole would be too much.

for (const [a, b] of model.folds) for (let k = a; k <= b; k++) state.folded.add(k);
let words = "";
if (count() > MOST) {
  for (const frame of graph.frames.slice(ENDS, -ENDS)) state.folded.add(frame.index);
  words = "Too many steps to draw at once";
}
slider.max = last;
slider.value = 0;
state.reached = last;
$("sweep").hidden = !model.gradients || last < 1;
$("parameters").append(...model.parameters.map(chip));
for (const [level, meaning] of model.key) {
  const line = svg("svg", { viewBox: "0 0 38 12", "aria-hidden": "true" }, svg("g", { class: `edge l${level}` }, svg("path", { d: "M1 6h34", "marker-end": `url(#a-${level})` })));
  $("key").append(tag("span", { role: "listitem" }, line, meaning));
}
named();
draw();
fit(true);
tell(words);
said();
