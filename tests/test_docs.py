"""Every example in a docstring and every code block of the README runs."""

import doctest
import importlib
import pathlib
import pkgutil
import re
import types

import covers
import pytest

import tinygrad_rnn as tg

MODULES = [m.name for m in pkgutil.walk_packages(tg.__path__, "tinygrad_rnn.") if not m.name.endswith("__main__")]
README = pathlib.Path(__file__).parent.parent / "README.md"
NOTEBOOKS = README.parent / "notebooks"


def documented():
    for name in ["tinygrad_rnn", *MODULES]:
        module = importlib.import_module(name)
        yield name, module.__doc__
        for key, value in vars(module).items():
            if getattr(value, "__module__", None) == name and isinstance(value, type | types.FunctionType) and value.__doc__:
                yield f"{name}.{key}", value.__doc__


EXAMPLES = [(name, doc) for name, doc in documented() if doc and ">>>" in doc]


@pytest.mark.parametrize(("name", "doc"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_docstring(name, doc):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failures = []
    runner.run(doctest.DocTestParser().get_doctest(doc, {}, name, None, 0), out=failures.append)
    assert not runner.failures, "".join(failures)


def test_public_functions_have_an_example():
    lacking = [n for n in tg.__all__ if isinstance(getattr(tg, n), types.FunctionType) and not n.startswith("_") and not getattr(tg, n).__doc__]
    assert not lacking


def test_readme(capsys):
    names = {}
    text = README.read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith(re.search(r"```text\n(.*?)```", text, re.DOTALL)[1])


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_and_its_text_are_a_pair(path):
    jupytext = pytest.importorskip("jupytext")
    notebook, text = (jupytext.read(p) for p in (path, path.with_suffix(".py")))
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in text.cells]
    assert path.stat().st_size < 1_000_000
    assert all(c.outputs or c.execution_count for c in notebook.cells if c.cell_type == "code")


def test_every_notebook_of_the_lecture_has_a_cover():
    assert set(covers.COVERS) == {path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")}
    files = {covers.cover(name)[0] for name in covers.COVERS}
    assert files == {path.name for path in covers.FOLDER.iterdir()}, "python tests/covers.py writes the pictures again"
    assert sum(path.stat().st_size for path in covers.FOLDER.iterdir()) < 1_500_000


@pytest.mark.parametrize("name", covers.COVERS)
def test_a_cover_is_the_picture_in_the_notebook_and_leads_to_it(name):
    file, content = covers.cover(name)
    assert (covers.FOLDER / file).read_bytes() == content, "python tests/covers.py writes the pictures again"
    link = rf'\[<img src="notebooks/covers/{file}" [^>]*alt="[^"]+"[^>]*>\]\(notebooks/{name}\.ipynb\)'
    assert len(re.findall(link, README.read_text(encoding="utf-8"))) == 1
