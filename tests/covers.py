"""A picture of each notebook for the README, out of the notebook's own outputs: ``python tests/covers.py`` writes notebooks/covers again."""

import base64
import json
import pathlib

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"
FOLDER = NOTEBOOKS / "covers"

# What the cell says whose picture it is.
COVERS = {
    "01_feed_forward": "margin = logits[wrong]",
    "02_memory_and_unrolling": 'name="unrolled"',
    "03_five_kinds": "run[:4]",
    "04_sentiment": "coloured(axis, words, weights",
    "05_language": "axis.add_patch",
    "06_translation": "axis.imshow(weights",
    "07_vanishing_and_exploding_gradients": "axes.plot_surface",
    "08_gru_and_lstm": 'maps = tg.diagnostics.activation_map(output, ["i", "f", "c"])',
    "09_stacked_and_bidirectional": "expected by the GRU",
    "10_your_own_cell": 'maps = tg.diagnostics.activation_map(output, ["w", "s"])',
}


def cover(name):
    """The name of the picture's file, and its bytes."""
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    (cell,) = (cell for cell in cells if cell["cell_type"] == "code" and COVERS[name] in "".join(cell["source"]))
    shown = next(output["data"] for output in cell["outputs"] if {"image/png", "image/svg+xml"} & set(output.get("data", ())))
    if "image/png" in shown:
        return f"{name}.png", base64.b64decode(shown["image/png"])
    return f"{name}.svg", "".join(shown["image/svg+xml"]).encode()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for name in COVERS:
        file, content = cover(name)
        (FOLDER / file).write_bytes(content)
