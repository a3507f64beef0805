"""Draw what becomes of rows that nobody judged, as ``docs/cold-rows.svg``: ``python -m benchmarks.picture``."""

from __future__ import annotations

from pathlib import Path

BASE = {"rows with judgements": 0.6863, "rows that nobody judged": 0.6734}
"""MetaTool, the judgements of 30 % of its rows hidden; the figures are those of ``benchmarks.cold_rows``."""
PLANS = {"NUDGE": (0.8730, 0.5228), "ρ = 0.3, as by default": (0.8695, 0.5306), "ρ = 0.3, carried": (0.8636, 0.6732)}
COLOURS = ("#2a6f97", "#c8553d")
WIDTH, HEIGHT, LEFT, TOP, FLOOR = 720, 330, 60, 50, 270
LOW, HIGH = 0.45, 0.95


def drawn() -> str:
    """Return the picture."""
    parts = [_text(WIDTH / 2, 24, "NDCG@10 of test queries, before (line) and after (bar)", "middle", 15)]
    for tick in (0.5, 0.6, 0.7, 0.8, 0.9):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{_at(tick)}" y2="{_at(tick)}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, _at(tick) + 4, f"{tick:.1f}", "end"))
    for place, (name, scores) in enumerate(PLANS.items()):
        middle = LEFT + 110 + 210 * place
        parts.append(_text(middle, FLOOR + 22, name, "middle", 14))
        for side, (score, base) in enumerate(zip(scores, BASE.values(), strict=True)):
            parts += _bar(middle - 75 + 80 * side, score, base, COLOURS[side])
    for side, name in enumerate(BASE):
        parts.append(
            f'<rect x="{LEFT + 120 + 230 * side}" y="{HEIGHT - 24}" width="12" height="12" fill="{COLOURS[side]}"/>'
        )
        parts.append(_text(LEFT + 138 + 230 * side, HEIGHT - 13, name, "start", 14))
    frame = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
    return f'<svg {frame}>\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"


def _bar(left: float, score: float, base: float, colour: str) -> list[str]:
    top, line = _at(score), _at(base)
    return [
        f'<rect x="{left}" y="{top}" width="70" height="{FLOOR - top:.1f}" fill="{colour}"/>',
        f'<line x1="{left - 4}" x2="{left + 74}" y1="{line}" y2="{line}" stroke="#222" stroke-width="2"/>',
        _text(left + 35, top - 6, f"{score - base:+.3f}", "middle", 13),
    ]


def _at(score: float) -> float:
    return round(FLOOR - (score - LOW) / (HIGH - LOW) * (FLOOR - TOP), 1)


def _text(left: float, top: float, words: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{left}" y="{top}" text-anchor="{anchor}" font-size="{size}" fill="#222">{words}</text>'


if __name__ == "__main__":
    (Path(__file__).parents[1] / "docs" / "cold-rows.svg").write_text(drawn(), encoding="utf-8")
