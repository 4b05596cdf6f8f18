"""Pictures as they are seen: every picture of the gallery, by the geometry of its SVG."""

import functools
import itertools
import re
import xml.etree.ElementTree as ElementTree

import gallery
import pytest

from tinygrad_rnn.drawing.layout import crosses, text_width

SVG = "{http://www.w3.org/2000/svg}"


@functools.cache
def picture(make):
    graph = make()
    return graph, ElementTree.fromstring(graph.svg())


@pytest.fixture(params=gallery.PICTURES, ids=lambda make: make.__name__)
def drawn(request):
    return picture(request.param)


def rect(element):
    x, y, w, h = (float(element.get(key)) for key in ("x", "y", "width", "height"))
    return x, y, x + w, y + h


def boxes(root):
    """Node id -> its rectangle."""
    return {g.get("id"): rect(g.find(f"{SVG}rect")) for g in root.iter(f"{SVG}g") if "node" in (g.get("class") or "").split()}


def edges(root):
    """Tail, head and the corners of every edge's line."""
    for g in root.iter(f"{SVG}g"):
        if g.get("data-tail"):
            values = [float(v) for v in re.findall(r"-?\d+\.?\d*", re.sub(r"Q(\S+ \S+) \S+ \S+(?=[LQ]|$)", r"L\1", g.find(f"{SVG}path").get("d")))]
            yield g, list(itertools.batched(values, 2)) if hasattr(itertools, "batched") else list(zip(values[::2], values[1::2], strict=True))


def overlap(a, b, slack=0.5):
    return a[0] < b[2] - slack and b[0] < a[2] - slack and a[1] < b[3] - slack and b[1] < a[3] - slack


def test_no_two_boxes_overlap(drawn):
    _, root = drawn
    placed = sorted(boxes(root).items(), key=lambda item: item[1])
    for k, (name, box) in enumerate(placed):
        for other, its in placed[k + 1 :]:
            if its[0] > box[2]:
                break
            assert not overlap(box, its), (name, other)


@functools.cache
def measured(text, size):
    """How wide a text really is, in the widest font that pictures ask for."""
    textpath = pytest.importorskip("matplotlib.textpath")
    properties = pytest.importorskip("matplotlib.font_manager").FontProperties(family="DejaVu Sans")
    return textpath.TextToPath().get_text_width_height_descent(text, properties, False)[0] * size / properties.get_size_in_points()


@pytest.mark.filterwarnings("ignore:Glyph")
def test_labels_are_inside_their_boxes(drawn):
    _, root = drawn
    sizes = {"small": 9, "mid": 10, "head": 12}
    for g in root.iter(f"{SVG}g"):
        frame = g.find(f"{SVG}rect")
        if frame is None or not {"node", "cluster"} & set((g.get("class") or "").split()):
            continue
        box = rect(frame)
        for text in g.iter(f"{SVG}text"):
            classes = (text.get("class") or "").split()
            width, x, y = measured(text.text, next((sizes[c] for c in classes if c in sizes), 11)), float(text.get("x")), float(text.get("y"))
            left = x if "left" in classes else x - width if "right" in classes else x - width / 2
            assert box[0] - 0.5 <= left and left + width <= box[2] + 0.5, (g.get("id"), text.text)
            assert box[1] + 5 <= y <= box[3] - 0.5 or len(text.text) == 0, (g.get("id"), text.text)


def test_texts_are_no_wider_than_they_are_taken_for():
    for text in ("weight_ih_l0_reverse", "⊙ h1", "σ tanh", "× ÷ − Σ … ∞", "WWWiii 0123456789"):
        assert measured(text, 11) <= text_width(text, 11) + 0.5


def test_all_of_it_is_in_the_picture(drawn):
    _, root = drawn
    left, top, width, height = map(float, root.get("viewBox").split())
    corners = [corner for box in boxes(root).values() for corner in (box[:2], box[2:])]
    corners += [point for _, points in edges(root) for point in points]
    for x, y in corners:
        assert left <= x <= left + width and top <= y <= top + height


def test_columns_are_in_order_and_equally_spaced(drawn):
    graph, root = drawn
    found = {g.get("id"): rect(g.find(f"{SVG}rect")) for g in root.iter(f"{SVG}g") if "data-steps" in g.attrib}
    blocks = {}
    for frame in graph.clusters:
        if frame.kind == "step":
            blocks.setdefault(frame.id.rpartition("step")[0], []).append((frame.first, found[frame.id]))
    for frames in blocks.values():
        assert [first for first, _ in frames] == sorted(first for first, _ in frames)
        lefts, widths = [box[0] for _, box in frames], {round(box[2] - box[0]) for _, box in frames}
        assert len(widths) == 1 and len({(box[1], box[3]) for _, box in frames}) == 1
        gaps = {round(b - a) for a, b in itertools.pairwise(lefts)}
        assert len(gaps) <= 1 and all(gap > min(widths) for gap in gaps)


def test_nodes_stand_in_the_frames_of_their_steps(drawn):
    graph, root = drawn
    placed = boxes(root)
    for frame in graph.clusters:
        for name in frame.nodes:
            box = placed[name]
            assert frame.x <= box[0] and box[2] <= frame.x + frame.width and frame.y <= box[1] and box[3] <= frame.y + frame.height, name


def test_rails_are_level(drawn):
    graph, root = drawn
    placed = boxes(root)
    for rail in graph.rails:
        same = [n for n in graph.nodes if n.state == rail.state and n.lane in ("", rail.lane) and n.kind in ("op", "rail", "state")]
        lane = {n.id.rpartition("-")[0].partition("step")[0] for n in same}
        for prefix in lane:
            middles = {round((placed[n.id][1] + placed[n.id][3]) / 2) for n in same if n.id.startswith(prefix) and (prefix or len(lane) == 1) and n.kind != "state"}
            assert len(middles) <= 1, (rail, middles)


def test_identical_steps_look_the_same(drawn):
    graph, _ = drawn
    shapes = {}
    by_id = {n.id: n for n in graph.nodes}
    for frame in graph.clusters:
        if frame.kind == "step" and not frame.folded and len({n.step for n in graph.nodes}) > 3:
            nodes = [by_id[name] for name in frame.nodes]
            key = tuple((n.op, n.lane, n.kind) for n in nodes)
            places = [part for n in nodes for part in (n.x - frame.x, n.y - frame.y)]
            assert places == pytest.approx(shapes.setdefault(key, places), abs=0.01)


def test_lines_end_at_their_boxes_and_cross_no_other(drawn):
    _, root = drawn
    placed = boxes(root)
    crossing = []
    for g, points in edges(root):
        tail, head = placed[g.get("data-tail")], placed[g.get("data-head")]
        for (x, y), box in ((points[0], tail), (points[-1], head)):
            assert box[0] - 1.5 <= x <= box[2] + 1.5 and box[1] - 1.5 <= y <= box[3] + 1.5, g.get("id")
        for name, box in placed.items():
            if name not in (g.get("data-tail"), g.get("data-head")):
                inner = (box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1)
                if any(crosses(a, b, inner) for a, b in itertools.pairwise(points)):
                    crossing.append((g.get("data-tail"), g.get("data-head"), name))
    assert not crossing


def test_it_can_be_read_without_seeing_it(drawn):
    graph, root = drawn
    assert root.get("role") == "img" and root.get("aria-labelledby") == "title desc"
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert graph.name in title.text and all(p.name in desc.text for p in graph.parameters[:20])
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    assert all(g.find(f"{SVG}title").text for g in root.iter(f"{SVG}g") if {"node", "edge"} & set((g.get("class") or "").split()) and g.get("id"))
    assert not re.search(r"https?://(?!www\.w3\.org/)|<script|@import|url\((?!#)", graph.svg())


def test_the_gallery_is_as_it_was_made(drawn, request):
    _, root = drawn
    name = request.node.callspec.id
    kept = ElementTree.parse(gallery.FOLDER / f"{name}.svg").getroot()
    assert boxes(kept) == boxes(root), "python tests/gallery.py writes the gallery again"
