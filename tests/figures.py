"""Figures that tests note: all are printed at the end of the run."""

import pytest

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figure(request):
    """Note a figure."""
    return noted(request)


def noted(request):
    """Return what notes a figure, for fixtures that last longer than a test."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_sessionfinish(session):
    """Hand over what was noted, where this is one of several processes that share the tests."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = session.config.stash.get(FIGURES, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    taken = getattr(node, "workeroutput", {}).pop("figures", [])  # not there twice: two conftests ask for it
    node.config.stash.setdefault(FIGURES, []).extend(taken)


def pytest_terminal_summary(terminalreporter, config):
    figures = config.stash.get(FIGURES, [])
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))
        figures.clear()  # asked for by the tests and by those against whole engines
