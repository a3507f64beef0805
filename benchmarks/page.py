"""The page that the benchmarks write: one section each in ``docs/benchmarks.md``, whichever was run last."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Every figure here was printed by the command that its section names; `make bench` runs them all and writes this page.
A ratio is taken within one run, the two sides in turn, and is the median of its runs.
"""


def record(title: str, body: str) -> None:
    """Put *body* under *title* in the page, in place of what stood there, and say when and on what it was measured."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else HEAD
    section = f"## {title}\n\n{body.strip()}\n\n*{conditions()}*\n"
    standing = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    replaced, times = standing.subn(lambda _: section + "\n", text)
    PAGE.write_text((replaced if times else f"{text.rstrip()}\n\n{section}").rstrip() + "\n", encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def conditions() -> str:
    """Return when, where and with what something is measured."""
    used = ", ".join(f"{name} {version(name)}" for name in ("numpy", "qdrant-client", "pymilvus"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {_commit()}, {os.cpu_count()} cores of {_processor()}, "
        f"{_memory_gib()} GiB, Python {platform.python_version()}, {used}"
    )


def _commit() -> str:
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=PAGE.parent, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", told.read_text()) if told.exists() else None
    return named[1] if named else platform.machine()


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
