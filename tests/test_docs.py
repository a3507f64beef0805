"""What the documents say is there is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("adapters/*.md")]
CODE = [*ROOT.glob("tests/*.py"), *ROOT.glob("integration/*.py"), *ROOT.glob("nudge_vdb/testing/*.py")]


@pytest.fixture(scope="module")
def tests():
    """The names of all tests there are."""
    return {name for file in CODE for name in re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8"))}


def test_every_promise_names_tests_that_there_are(tests):
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")))
    assert len(named) > 20
    assert named - tests == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_is_there(document):
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:docs|tests|integration|benchmarks|adapters|nudge_vdb)/[\w/.-]*\w)`", text))
    named |= set(re.findall(r"\]\(([\w/.-]+)\)", text))
    missing = {name for name in named if not (ROOT / name).exists() and not (document.parent / name).exists()}
    assert missing == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_target_of_make_that_a_document_names_is_there(document):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(
        re.findall(r"\bmake ((?:test|bench|demo|check|torture|clean)[\w-]*)", document.read_text(encoding="utf-8"))
    )
    assert named - targets == set()
