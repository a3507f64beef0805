"""Whatever people get wrong, they are told what and what to do, and nothing was written."""

import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models

import nudge_vdb
from nudge_vdb import cli
from nudge_vdb.contract import Metric
from nudge_vdb.standing import open_state
from tests.bad_inputs import CASES
from tests.conftest import make_world

CHEAP = {"step": 0.3, "max_queries": 30}


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """A folder of Qdrant's local mode with collections of every kind."""
    folder = tmp_path_factory.mktemp("qdrant") / "db"
    plain, sparse = models.VectorParams(size=24, distance=models.Distance.COSINE), models.SparseVectorParams()
    many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client = QdrantClient(path=str(folder))
    for name, vectors, others in (
        ("plain", plain, None),
        ("two", {"a": plain, "b": plain}, None),
        ("sparse", {}, {"s": sparse}),
        ("none", {}, None),
        ("many", plain.model_copy(update={"multivector_config": many}), None),
        ("bytes", plain.model_copy(update={"datatype": models.Datatype.UINT8}), None),
        ("taxi", plain.model_copy(update={"distance": models.Distance.MANHATTAN}), None),
    ):
        client.create_collection(name, vectors_config=vectors, sparse_vectors_config=others)
    client.close()
    return folder


@dataclass
class Stage:
    """A collection, a folder for its state, and judgements in files."""

    folder: Path
    db: Path
    world: object = field(default_factory=make_world)

    def __post_init__(self):
        self.state, self.given, self.good = (self.folder / name for name in ("state", "given.jsonl", "good.jsonl"))
        train = self.world.train
        lines = [
            {"query_id": name, "vector": vector.tolist(), "relevant": [row]}
            for name, vector, row in zip(train.query_ids, train.vectors, train.rows, strict=True)
        ]
        self.good.write_text("\n".join(map(json.dumps, lines)))
        (self.folder / "empty").mkdir()

    def words(self, command):
        places = {"folder": self.folder / "empty", "state": self.state, "db": self.db}
        filled = command.format(good=self.good, given=self.given, **places)
        return ["" if word == "-EMPTY-" else word for word in filled.split()]

    def make(self, metric="cosine", width=24):
        return make_world(Metric(metric), width=width)

    def plan(self):
        return nudge_vdb.plan(self.world.collection, self.world.train, state=self.state, **CHEAP)

    def tune(self):
        nudge_vdb.apply(self.plan(), force=True)

    def change(self, name, old, new):
        path = open_state(self.world.collection, self.state).folder / name
        path.write_bytes(path.read_bytes().replace(old, new))

    def take_the_folder_of(self, name):
        mine = open_state(self.world.collection, self.state).folder
        self.world.collection.name = name
        mine.rename(open_state(self.world.collection, self.state).folder)

    def held(self):
        """Return all that must not change: rows, notes, and the files of the state but those of its lock."""
        rows = {text: (row.vector.tobytes(), row.payload) for text, row in self.world.collection.rows.items()}
        files = {path: path.read_bytes() for path in self.state.rglob("*/*") if path.is_file()}
        return rows, dict(self.world.collection.kept), {path: files[path] for path in files if path.name != "lock"}


@pytest.fixture
def stage(tmp_path, db):
    return Stage(tmp_path, db)


@pytest.fixture
def nudge(stage, monkeypatch, capsys):
    """Run the command line with --json; return its exit status and its JSON object."""
    connect = nudge_vdb.connect
    monkeypatch.setattr(
        nudge_vdb, "connect", lambda text: stage.world.collection if text.startswith("memory:") else connect(text)
    )

    def run(words):
        monkeypatch.setenv("NUDGE_VDB_STATE", str(stage.state))
        monkeypatch.setattr(sys, "argv", ["nudge-vdb", *words, "--json"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("case", CASES, ids=lambda case: re.sub(r"[^ -~]", "?", f"{case[0][:60]}: {case[4][:30]}"))
def test_bad_input_is_refused_in_words_and_nothing_is_written(case, stage, nudge, figure):
    command, before, status, error, words = case
    if callable(before):
        before(stage)
    elif before is not None:
        stage.given.write_bytes(before if isinstance(before, bytes) else before.encode())
    held, known = stage.held(), stage.state.exists()
    found, told = nudge(stage.words(command))
    assert (found, told["status"]) == (status, status), told
    assert re.fullmatch(error, told["error"]), told
    assert re.search(words, told["message"]), told["message"]
    assert "Traceback" not in told["message"]
    rows, notes, files = stage.held()
    assert (rows, notes) == held[:2]
    assert {path: content for path, content in files.items() if known} == held[2]


def test_the_number_of_bad_inputs_is_told(figure):
    assert len(CASES) >= 60
    figure(f"bad input: {len(CASES)} kinds refused; 0 payloads changed, 0 rows created, 0 vectors written")


FULL = """
mount -t tmpfs -o size={size}k tmpfs {state} || exit 42
exec {python} -c '
import sys
import nudge_vdb
from tests.conftest import make_world
world = make_world()
before = world.vectors()
try:
    nudge_vdb.plan(world.collection, world.train, state="{state}", step=0.3)
except nudge_vdb.errors.BadOption as exc:
    print(exc)
assert all((world.vectors()[text] == vector).all() for text, vector in before.items())
'
"""


@pytest.mark.parametrize("size", [4, 12, 24, 40])
def test_a_state_on_a_full_disk_is_said_in_words(size, tmp_path):
    script = FULL.format(size=size, state=tmp_path, python=sys.executable)
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare here, so no small disk can be made")
    ended = subprocess.run([unshare, "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if ended.returncode == 42 or "unshare" in ended.stderr:
        pytest.skip(f"no small disk can be made here: {ended.stderr.strip()}")
    assert ended.returncode == 0, ended.stderr
    assert "cannot be written: " in ended.stdout
    assert "make room" in ended.stdout


def test_a_state_where_nobody_may_write_is_said_in_words(stage, nudge):
    stage.state = Path("/proc/nudge")
    status, told = nudge(stage.words("tune memory://articles --judgements {good}"))
    assert (status, told["error"]) == (2, "BadOption")
    assert "cannot be written" in told["message"]


def test_the_command_line_joins_files_and_reads_standard_input(stage, nudge, monkeypatch):
    lines = stage.good.read_text().splitlines()
    stage.given.write_text("\n".join(lines[:100]))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO("\n".join(lines[90:]).encode()))))
    words = ["evaluate", "memory://articles", "--judgements", str(stage.given), "--judgements", "-"]
    status, report = nudge(words)
    assert (status, report["queries"]) == (0, len(lines))
    status, report = nudge([*words[:-1], str(stage.good), "--equal-ids", "refuse"])
    assert (status, report["error"]) == (2, "BadJudgements")
    assert f"{stage.given} line 1 and on {stage.good} line 1" in report["message"]
