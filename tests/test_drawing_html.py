"""Pictures as pages: what is in the file, and what a browser makes of it when a user points, clicks and types."""

import html.parser
import json
import re
import subprocess
import sys
import time

import browser
import gallery
import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.drawing.model import Edge, Node
from tinygrad_rnn.drawing.sweep import Sweep

needs_browser = pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium is installed")
EVIL = "</script ><img src=x onerror=document.title='owned'><b>&amp;'\"\u2028{{title}}</b><!--"


def lstm(steps, **options):
    _, (h, _) = nn.LSTM(6, 8, rng=0)(gallery.numbers(steps, 2, 6))
    return tg.graph((h * h).mean(), **({"gradients": True} | options))


def model(page):
    return json.loads(re.search(r'<script type="application/json" id="model">(.*?)</script>', page, re.S)[1])


class Elements(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page):
    parser = Elements()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser.found


PICTURES = [
    gallery.lstm_folded, gallery.lstm_rolled, gallery.lstm_tape, gallery.two_layers_cells, gallery.bidirectional_layers, gallery.bidirectional_folded, gallery.encoder_decoder,
    gallery.attention_in_the_loop, gallery.truncated, gallery.convolution, gallery.convolution_modules, gallery.another_step, gallery.two_states, gallery.outputs, gallery.infinite,
]  # fmt: skip

# The file


@pytest.mark.parametrize("make", [gallery.lstm_folded, gallery.encoder_decoder, gallery.convolution, gallery.infinite], ids=lambda make: make.__name__)
def test_a_page_needs_nothing_else_and_is_well_formed(make):
    page = make().html()
    assert {url for url in re.findall(r"https?://[^\"'\s]+", page)} <= {"http://www.w3.org/2000/svg"}
    for tag, attributes in parsed(page):
        assert tag not in ("link", "img", "iframe", "object", "base") and "src" not in attributes and attributes.get("href", "#")[0] == "#"
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|innerHTML|eval\(", page)


def test_the_same_network_gives_the_same_bytes_in_every_process():
    program = "import sys, hashlib; sys.path.insert(0, sys.argv[1]); import gallery; print(*(hashlib.sha256(f().html().encode()).hexdigest() for f in (gallery.encoder_decoder, gallery.lstm_folded)))"
    folder = str(gallery.FOLDER.parent.parent / "tests")
    made = {
        subprocess.run([sys.executable, "-c", program, folder], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True).stdout
        for seed in "12"
    }
    assert len(made) == 1 and len(made.pop()) == 130


def test_pages_stay_small():
    assert len(lstm(50, values=True).html().encode()) < 120_000
    longer = [len(lstm(steps).html().encode()) for steps in (100, 200)]
    assert longer[1] - longer[0] < 1_000 * 100


def test_a_folded_picture_unfolds_into_what_fold_none_draws():
    folded, whole = lstm(30), lstm(30, fold=None)
    assert folded.unfolded().dot == whole.dot and whole.unfolded() is whole
    assert model(folded.html()) == model(whole.html()) | {"folds": [[2, 27]]}


def test_names_are_never_markup():
    W = tg.tensor(np.eye(2), requires_grad=True, name=EVIL)
    with tg.scope("step", step=0):
        y = (W @ W).sum()
    page = tg.graph(y, name=EVIL, gradients=True).html()
    assert [tag for tag, _ in parsed(page)].count("script") == 2 and not any(tag in ("img", "b") for tag, _ in parsed(page))
    (parameter,) = model(page)["parameters"]
    assert parameter["name"] == EVIL


@pytest.mark.parametrize("make", [gallery.lstm_folded, gallery.bidirectional_layers, gallery.encoder_decoder, gallery.attention_in_the_loop], ids=lambda make: make.__name__)
def test_the_sweep_reaches_what_a_value_goes_to_before_the_value(make):
    graph = make().unfolded()
    sweep = Sweep(graph, [frame for frame in graph.clusters if frame.kind == "step"])
    assert sweep.labels[0] == "loss" and max(sweep.stop.values()) == len(sweep.labels) - 1
    for edge in graph.edges:
        assert sweep.stop[edge.head] <= sweep.stop[edge.tail], edge


# In a browser


@pytest.fixture(scope="module")
def chromium():
    opened = browser.Browser()
    yield opened
    opened.close()


@pytest.fixture
def opened(chromium, tmp_path):
    """Opens a picture's page; afterwards nothing may have gone wrong on it, and nothing may have been fetched."""

    def show(graph, **media):
        path = tmp_path / "picture.html"
        graph.save(path)
        chromium.open(path, **media)
        return chromium

    yield show
    chromium.run("1")
    assert chromium.errors == [] and chromium.requests == [f"file://{tmp_path}/picture.html"]


def texts(page, selector):
    return page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)")


def ids(page, selector):
    return page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.id)")


def tooltip(page):
    """The tooltip's title and rows; it must be inside the window."""
    title, rows, box = page.run(
        "(() => {const t = document.getElementById('tip'), r = t.getBoundingClientRect(); return t.hidden ? [null, [], null] : "
        "[t.querySelector('b').textContent, [...t.querySelectorAll('tr')].map((e) => [e.children[0].textContent, e.children[1].textContent]), [r.left, r.top, innerWidth - r.right, innerHeight - r.bottom]]})()"
    )
    assert box is None or min(box) >= 0, box
    return title, dict(rows)


@needs_browser
@pytest.mark.parametrize("make", PICTURES, ids=lambda make: make.__name__)
def test_a_page_shows_the_model_folded_and_unfolded(make, opened):
    """What the page unpacked is what the model says; boxes never overlap and lines go from box to box, whatever is folded."""
    graph = make()
    page, whole = opened(graph), graph.unfolded()
    shown = page.run("graph.nodes.map((n) => [n.id, n.label ?? '', n.x, n.y, n.w, n.h, n.norm === null ? null : String(n.norm), n.ports.length, n.source ?? '', n.scope ?? ''])")
    expected = {n.id: n for n in whole.nodes}
    assert sorted(row[0] for row in shown) == sorted(expected)
    for name, label, x, y, w, h, norm, ports, source, scope in shown:
        node = expected[name]
        assert (label, ports, source, scope) == (node.label, len(node.ports), node.source, node.scope)
        assert (x, y, w, h) == pytest.approx((node.x, node.y, node.width, node.height), abs=0.11)
        assert (norm is None) == (node.norm is None) and (norm is None or float(norm.replace("Infinity", "inf")) == pytest.approx(node.norm, rel=1e-3, nan_ok=True))
    flows = dict.fromkeys("1234", "healthy") | {"c": "vanishing", "h": "exploding", "b": "nan or inf", "z": "zero", "u": "unasked", "n": "none"}
    lines = page.run("graph.edges.map((e) => [e.tail, e.head, e.port ?? '', e.level, e.points.flat()])")
    drawn = sorted((tail, head, port, flows[level]) for tail, head, port, level, _ in lines)
    assert drawn == sorted((e.tail, e.head, e.tail_port, "nan or inf" if e.flow in ("nan", "inf") else e.flow) for e in whole.edges)
    points = {(e.tail, e.head, e.tail_port): np.ravel(e.points) for e in whole.edges}
    for tail, head, port, level, at in lines:
        if drawn.count((tail, head, port, flows[level])) == 1:
            assert at == pytest.approx(points[tail, head, port], abs=0.11)
    for change in ("", "fold", "unfold", "layers"):
        if change == "layers":
            page.run("for (const id of [...document.querySelectorAll('.lane, .module')].map((e) => e.id)) document.getElementById(id).act()")
        elif change:
            page.run(f"document.getElementById('{change}').click()")
        assert page.run(OVERLAPS) == [] and page.run(LOOSE) == [] and page.run(LOST) == [], change
        assert page.run("drawn.runs.every((r) => new Set(r.frames.map((f) => f.block)).size === 1)")


# Boxes that overlap; a bar lies across folded steps by right.
OVERLAPS = """(() => {
  const bars = new Set(drawn.nodes.filter((n) => n.node.kind === 'bar').map((n) => n.node.id)), bad = [];
  const boxes = [...drawn.nodes.filter((n) => !bars.has(n.node.id)).map((n) => [n.node.id, n]), ...drawn.runs.map((r) => [r.id, r.at]), ...drawn.cells.map((c) => [c.id, c.at])];
  boxes.forEach(([a, p], k) => boxes.slice(k + 1).forEach(([b, q]) => { if (p.x < q.x + q.w - .5 && q.x < p.x + p.w - .5 && p.y < q.y + q.h - .5 && q.y < p.y + p.h - .5) bad.push(a + ' ' + b); }));
  return bad })()"""
# Lines between what is shown that are not drawn; what goes to a bar across folded steps is under it.
LOST = """(() => {
  const home = new Map(drawn.nodes.map((n) => [n.node, n.node.id])), there = new Set();
  for (const r of drawn.runs) for (const f of r.frames) for (const n of f.nodes) home.set(n, r.id);
  for (const box of [...drawn.cells, ...drawn.modules.filter((m) => m.kind === 'module')]) for (const n of box.nodes) home.set(n, box.id);
  for (const e of drawn.edges) there.add(home.get(e.edge.from) + ' > ' + home.get(e.edge.to));
  return graph.edges.filter((e) => e.from.kind !== 'bar' && e.to.kind !== 'bar').map((e) => [home.get(e.from), home.get(e.to)]).filter(([a, b]) => a !== b && !there.has(a + ' > ' + b)) })()"""
# Lines that do not begin at the box that they come from, or do not end at the one that they go to.
LOOSE = """(() => {
  const at = new Map(drawn.nodes.map((n) => [n.node.id, n]));
  const near = (r, [x, y]) => r && x >= r.x - 3 && x <= r.x + r.w + 3 && y >= r.y - 3 && y <= r.y + r.h + 3;
  return drawn.edges.filter((e) => !near(e.a?.at ?? at.get(e.edge.tail), e.points[0]) || !near(e.b?.at ?? at.get(e.edge.head), e.points.at(-1))).map((e) => e.edge.tail + ' ' + e.edge.head) })()"""


@needs_browser
def test_hovering_tells_shape_dtype_norms_and_source(opened):
    with tg.detect_anomaly():
        _, h = nn.RNN(6, 8, rng=0)(gallery.numbers(3, 2, 6))
    graph = tg.graph((h * h).mean(), gradients=True, values=True)
    page = opened(graph)
    for node in (graph.node("step2-h"), graph.nodes[-1], next(n for n in graph.nodes if n.kind == "output")):
        page.hover(f'[id="{node.id}"]')
        title, rows = tooltip(page)
        assert title.startswith(node.label.split("\n")[0]) and rows["shape"] == ("×".join(map(str, node.shape)) or "scalar") and rows["dtype"] == "float32"
        if node.norm is not None:
            assert float(rows["gradient norm"]) == pytest.approx(node.norm, rel=1e-2) and float(rows["value norm"]) == pytest.approx(node.value, rel=1e-2)
    page.hover('[id="step2-h"]')
    assert tooltip(page)[1]["source"] == graph.node("step2-h").source != ""
    page.mouse("mouseMoved", 640, 60)
    assert tooltip(page)[0] is None


@needs_browser
def test_values_without_gradients(opened):
    graph = lstm(30, gradients=False, values=True)
    page = opened(graph)
    assert page.run("document.getElementById('sweep').hidden") and page.run("document.querySelectorAll('.run .bars').length") == 2
    page.hover(".run > .head")
    first, last = (graph.unfolded().node(f"step{t}-c").value for t in (3, 28))
    assert [float(part) for part in tooltip(page)[1]["value of c"].split(" … ")] == pytest.approx([first, last], rel=1e-2)


@needs_browser
def test_a_parameter_lights_all_its_uses_and_a_use_its_parameter(opened):
    graph = lstm(3)
    page = opened(graph)
    weight = next(p for p in graph.parameters if p.name == "weight_hh_l0")
    uses = [n.id for n in graph.nodes if weight.id in n.parameters]
    assert len(uses) == 3
    page.hover(f'[id="chip-{weight.id}"]')
    assert sorted(ids(page, "#picture .lit")) == uses and tooltip(page)[1]["uses"] == "3"
    page.hover(f'[id="{uses[1]}"]')
    assert sorted(ids(page, ".lit")) == sorted([*uses, f"chip-{weight.id}"])
    assert float(re.search(r"this step (\S+)", tooltip(page)[1]["reads"])[1]) == pytest.approx(weight.shares[2], rel=1e-2)
    page.mouse("mouseMoved", 640, 60)
    assert ids(page, ".lit") == []
    page.click(f'[id="chip-{weight.id}"]')
    page.mouse("mouseMoved", 640, 60)
    assert len(ids(page, ".lit")) == 4


@needs_browser
def test_a_click_unfolds_steps_and_folds_one(opened):
    graph = lstm(30)
    page = opened(graph)
    assert texts(page, ".run > .head") == ["t = 3 … 28"] and "26 steps of 30 folded" in texts(page, "#status")[0]
    folded = page.screenshot()
    before = page.place('[id="step2"] .rim')
    page.click(".run")
    assert len(ids(page, ".frame")) == 30 and len(ids(page, "#picture .node")) == len(graph.unfolded().nodes) and page.place('[id="step2"] .rim') == pytest.approx(before)
    assert page.screenshot() != folded
    page.click('[id="step2"] .grip')
    assert texts(page, ".run > .head") == ["t = 2"] and page.run("document.getElementById('step2').getAttribute('aria-expanded')") == "false"
    page.click("#fold")
    assert texts(page, ".run > .head") == ["t = 2 … 28"] or texts(page, ".run > .head") == ["t = 2", "t = 3 … 28"]


@needs_browser
def test_layers_and_modules_fold(opened):
    page = opened(gallery.two_layers())
    before = len(ids(page, "#picture .node"))
    page.click(".lane .grip")
    assert len(ids(page, ".cell")) == 3 and len(ids(page, "#picture .node")) < before
    page.click(".cell")
    assert ids(page, ".cell") == [] and len(ids(page, "#picture .node")) == before
    page = opened(gallery.convolution())
    count = len(ids(page, "#picture .node"))
    page.click(".module .grip")
    assert len(ids(page, ".shut")) == 1 and len(ids(page, "#picture .node")) == count - 2
    page.click(".shut")
    assert len(ids(page, "#picture .node")) == count


@needs_browser
def test_the_slider_moves_the_gradient_from_the_loss_to_the_first_step(opened):
    graph = lstm(4)
    page = opened(graph)

    def unreached():
        return {name.split("-")[0] for name in ids(page, ".node.later") if name.startswith("step")}

    assert unreached() == set() and page.run("document.getElementById('slider').value") == "0"
    for reached in range(5):
        page.run(f"(() => {{const s = document.getElementById('slider'); s.value = {4 - reached}; s.dispatchEvent(new Event('input'))}})()")
        assert unreached() == {f"step{t}" for t in range(1, 5 - reached)}
        said = texts(page, "#readout")[0]
        if reached:
            t = 5 - reached
            assert said.startswith(f"t = {t}: ") and ids(page, ".step.now") == [f"step{t}"]
            assert float(re.search(rf"h{t} (\S+)", said)[1]) == pytest.approx(graph.node(f"step{t}-h").norm, rel=1e-2)
        else:
            assert said == "at the loss"
    page.press("ArrowRight")
    assert unreached() == {"step1"}
    page.press("ArrowLeft")
    assert unreached() == set()


@needs_browser
def test_the_keyboard_reaches_everything(opened):
    graph = lstm(30)
    page = opened(graph)
    order = []
    for _ in range(90):
        page.press("Tab")
        order.append(page.run("document.activeElement.id || document.activeElement.className"))
        if order[-1] == "slider":
            break
    assert order[0] == "skip" and order[-1] == "slider"
    steps = [name for name in order if re.fullmatch(r"step\d+|fold-.*", name)]
    assert steps == ["step1", "step2", "fold-step3-step28", "step29", "step30"]
    assert {n.id for n in graph.nodes if n.kind not in ("fold", "rail")} <= set(order) and {f"chip-{p.id}" for p in graph.parameters} <= set(order)
    for key, shown in ((" ", 30), ("Enter", 29)):
        page.run("document.querySelector('.run, #step3').focus()")
        page.press(key)
        assert len(ids(page, ".frame")) == shown
        assert page.run("document.activeElement.id") == "step3"
    page.run("document.getElementById('step1-c').focus()")
    assert tooltip(page)[0] == "+ c1"
    page.press("Escape")
    assert tooltip(page)[0] is None
    scale = "Number(document.getElementById('world').getAttribute('transform').match(/scale\\((.*)\\)/)[1])"
    start = page.run(scale)
    page.press("+")
    assert page.run(scale) == pytest.approx(start * 1.25, rel=1e-3)
    for _ in range(3):
        page.press("-")
    assert page.run(scale) < start
    page.press("0")
    assert page.run(
        "(() => {const r = document.getElementById('world').getBoundingClientRect(), p = picture.getBoundingClientRect(); return r.left >= p.left && r.right <= p.right && r.top >= p.top && r.bottom <= p.bottom})()"
    )


@needs_browser
def test_the_pointer_moves_and_zooms_and_does_not_fold_on_the_way(opened):
    page = opened(lstm(30))
    x, y = page.place('[id="step1"] .rim')
    handle = page.place('[id="step1"] .grip')
    page.drag(handle, (handle[0] + 90, handle[1] + 40))
    assert page.place('[id="step1"] .rim') == pytest.approx((x + 90, y + 40), abs=1) and len(ids(page, ".run")) == 1
    corner = page.place('[id="step2"] .rim')
    page.mouse("mouseWheel", *corner, deltaX=0, deltaY=-200)
    assert page.place('[id="step2"] .rim') == pytest.approx(corner, abs=1)
    assert page.place('[id="step1"] .rim')[0] < x + 90


@needs_browser
def test_dark_and_light_and_reduced_motion(opened):
    paper = "getComputedStyle(document.body).backgroundColor"
    page = opened(lstm(3))
    light, bright = page.run(paper), page.screenshot()
    page.click("#theme")
    dark = page.run(paper)
    assert dark != light and page.screenshot() != bright
    page.click("#theme")
    assert page.run(paper) == light
    page.media(dark=True)
    page = opened(lstm(3), dark=True)
    assert page.run(paper) == dark
    page.click("#theme")
    assert page.run(paper) == light
    page = opened(lstm(3, theme="dark"))
    assert page.run(paper) == dark
    assert page.run("getComputedStyle(document.getElementById('play')).display") != "none"
    page.click("#play")
    until = time.monotonic() + 10
    while page.run("document.getElementById('play').textContent") != "▶" and time.monotonic() < until:
        time.sleep(0.1)
    assert page.run("slider.value") == "0" and ids(page, ".step.now") == ["step1"]
    page = opened(lstm(3), still=True)
    assert page.run("getComputedStyle(document.getElementById('play')).display") == "none"


@needs_browser
def test_names_in_a_browser_are_text(opened):
    W = tg.tensor(np.eye(2), requires_grad=True, name=EVIL)
    V = tg.tensor(np.eye(2), requires_grad=True, name="__proto__")
    h = tg.tensor(np.eye(2), name="constructor")
    for t in range(3):
        with tg.scope("__proto__", step=t):
            h = tg.tanh(h @ W + V)
    page = opened(tg.graph(h.sum(), name=EVIL, gradients=True))
    assert page.run("document.images.length") == 0 and page.run("document.title").startswith("</script >")
    assert sorted(texts(page, ".chip small")) == sorted([EVIL, "__proto__"]) or EVIL in "".join(texts(page, ".chip"))
    page.hover(".chip")
    assert tooltip(page)[0] in (EVIL, "__proto__")


@needs_browser
def test_what_is_too_long_for_a_page_stays_folded_and_the_page_says_so(opened, monkeypatch):
    monkeypatch.setattr(sys.modules[tg.graph.__module__], "KEPT", 100)
    graph = lstm(30)
    page = opened(graph)
    assert "26 steps folded: too many for this page to open" in texts(page, "#status")[0]
    assert sorted(ids(page, "#picture .node")) == sorted(n.id for n in graph.nodes) and len(ids(page, ".frame")) == 5
    assert page.run("document.querySelectorAll('.rail .bars').length") == 2 and page.run(LOOSE) == []
    page.hover('[id="step3-28"]')
    page.click("#fold")
    assert len(ids(page, "#picture .node.rail")) == 2


@needs_browser
def test_a_picture_that_a_user_changed_opens(opened):
    graph = lstm(3)
    gone = graph.node("step2-tanh")
    graph.nodes.remove(gone)
    graph.edges.append(Edge("step1-c", "mine"))
    graph.nodes.append(Node("mine", "my note", x=graph.node("step1-c").x, y=-400.0, width=70.0, height=24.0))
    graph.node("step1-h").label = "the first"
    graph.parameters[0].name = "mine too"
    page = opened(graph)
    assert "my note" in texts(page, ".node") and any("the first" in word for word in texts(page, ".node")) and "mine too" in texts(page, ".chip small")
    assert gone.id not in ids(page, ".node") and page.run(LOOSE) == []
    page.click("#fold")


@needs_browser
def test_a_thousand_steps_open_and_say_what_stays_folded(opened):
    graph = lstm(1000, fold=None)
    assert len(graph.html().encode()) < 500_000
    page = opened(graph)
    assert "960 steps of 1000 folded" in texts(page, "#status")[0] and len(ids(page, ".frame")) == 40
    page.run("document.querySelector('.run').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert "20 steps opened at each end" in texts(page, "#status")[0] and "920 steps of 1000 folded" in texts(page, "#status")[0] and len(ids(page, ".frame")) == 80
    assert page.run("(() => {let boxes = 0; for (const f of graph.frames) boxes += f.nodes.length; return boxes > MOST && count() <= MOST})()")
