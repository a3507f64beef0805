"""What the README shows is what is printed."""

import json
import re
import sys
from pathlib import Path

import pytest

from nudge_vdb import cli
from nudge_vdb.backends import fill
from nudge_vdb.contract import Metric
from nudge_vdb.demo import cranfield, cranfield_rows

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^\$ (nudge-vdb tune .*)$", re.MULTILINE)


def written(path, judgements):
    lines = [
        {
            "query_id": name,
            "vector": judgements.vectors[place].tolist(),
            "relevant": [int(row) for row, _ in judgements.relevant(place)],
        }
        for place, name in enumerate(judgements.query_ids)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_every_line_that_the_readme_shows_of_its_tune_is_printed_by_it(tmp_path, monkeypatch, capsys):
    address = f"qdrant+local://{tmp_path}/db/articles?vector=title"
    fill(address, cranfield_rows(), Metric.COSINE).close()
    written(tmp_path / "judgements.jsonl", cranfield("train", "dev"))
    written(tmp_path / "test.jsonl", cranfield("test"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUDGE_VDB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")
    named = "qdrant://localhost:6333/articles?vector=title"
    command = COMMAND.search(README)[1].replace("'", "").split()
    monkeypatch.setattr(sys, "argv", [address if word == named else word for word in command])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr().out.replace(address, named).splitlines()
    shown = README[COMMAND.search(README).end() :].split("```")[0].strip("\n").splitlines()
    assert not stopped.value.code
    assert len(shown) > 8
    assert [line for line in shown if line not in printed] == []
