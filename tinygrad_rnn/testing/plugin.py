"""``pytest --gradient-report``: at the end of a run, a table of what the gradient checks in it covered."""

from __future__ import annotations

from typing import Any


def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("tinygrad_rnn")
    group.addoption("--gradient-report", action="store_true", help="print which operations and modules had their gradients checked, where, to which order and how tightly")


def pytest_configure(config: Any) -> None:
    if config.getoption("--gradient-report"):
        from . import checking
        from .coverage import Coverage

        checking.COVERAGE = Coverage()


def pytest_unconfigure(config: Any) -> None:
    if config.getoption("--gradient-report"):
        from . import checking

        checking.COVERAGE = None


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    if not config.getoption("--gradient-report"):
        return
    from . import checking

    terminalreporter.section("gradients checked")
    terminalreporter.write_line(checking.COVERAGE.table() if checking.COVERAGE is not None else "nothing")
    for name in ("skipped", "xfailed"):
        terminalreporter.write_line(f"{len(terminalreporter.stats.get(name, []))} tests {name}")
