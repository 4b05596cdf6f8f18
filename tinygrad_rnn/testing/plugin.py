"""What pytest says of gradient checks: how many were inconclusive, and, with ``--gradient-report``, a table of what they covered."""

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
    from . import checking

    if config.getoption("--gradient-report"):
        terminalreporter.section("gradients checked")
        terminalreporter.write_line(checking.COVERAGE.table() if checking.COVERAGE is not None else "nothing")
    total = sum(checking.TALLY.values())
    if total:
        # What was not checked is not to be taken for what passed.
        left_out = ", ".join(f"{len(terminalreporter.stats.get(name, []))} tests {name}" for name in ("skipped", "xfailed"))
        terminalreporter.write_line(f"gradient checks: {total}, {checking.TALLY['inconclusive']} inconclusive; {left_out}")
