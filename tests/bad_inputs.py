"""What people get wrong: (words of the command, what is done before, exit status, error class, words of the message).

In the words, {good} is a file of judgements that fit, {given} the one that a case writes, {db} a folder of Qdrant's
local mode, {folder} an empty folder and {state} the state; M is a collection in memory of 200 rows.
"""

import json

import numpy as np

M = "memory://articles"
TUNE = f"tune {M} --judgements"


ADDRESSES = [
    ("", 2, "BadAddress", "lacks a backend"),
    ("articles", 2, "BadAddress", "lacks a backend"),
    ("qdrant://", 2, "BadAddress", "lacks the name of a collection"),
    ("qdrant://localhost", 2, "BadAddress", "lacks the name of a collection"),
    ("qdrant://me:secret@localhost/a", 2, "BadAddress", "may not hold a password"),
    ("qdrant://localhost:99999/a", 2, "BadAddress", "is not an address"),
    ("qdrant://localhost/a#b", 2, "BadAddress", "write it as %23"),
    ("qdrant://localhost/a?vector=a&vector=b", 2, "BadAddress", "an option twice"),
    ("qdrant+ftp://localhost/a", 2, "BadAddress", r"qdrant\+ftp is not known"),
    ("qdrant:///a", 2, "BadAddress", "names a host"),
    ("weaver://localhost/a", 2, "BackendUnavailable", "installed: milvus, qdrant"),
    ("qdrant+local:///nowhere/a", 2, "BadAddress", "no folder of Qdrant's local mode"),
    ("qdrant+local://{db}/nope", 2, "UnfitCollection", "there is no collection 'nope'"),
    ("qdrant+local://{db}/plain?colour=red", 2, "BadAddress", "no option colour"),
    ("qdrant+local://{db}/two", 2, "UnfitCollection", "choose one with"),
    ("qdrant+local://{db}/two?vector=c", 2, "UnfitCollection", "no vector 'c'"),
    ("qdrant+local://{db}/sparse", 2, "UnfitCollection", "sparse"),
    ("qdrant+local://{db}/none", 2, "UnfitCollection", "holds no vectors"),
    ("qdrant+local://{db}/many", 2, "UnfitCollection", "several vectors per row"),
    ("qdrant+local://{db}/bytes", 2, "UnfitCollection", "only float32"),
    ("qdrant+local://{db}/taxi", 2, "UnfitCollection", "compares by Manhattan"),
    ("qdrant+local://{db}/plain", 2, "UnfitCollection", "holds no row with a vector"),
    ("milvus+lite:///nowhere/a.db/a", 2, "BadAddress", "a new one is never created"),
    ("milvus+ftp://localhost/a", 2, "BadAddress", "is not known"),
    ("milvus://localhost", 2, "BadAddress", "lacks the name of a collection"),
]

VECTOR = [1.0, *[0.0] * 23]


def line(**changes):
    good = {"query_id": "q", "vector": VECTOR, "relevant": ["row 001"]}
    return json.dumps({name: value for name, value in {**good, **changes}.items() if value != "left out"})


JUDGEMENTS = [
    ("", "there are no judgements"),
    ("{", "line 1 is not JSON"),
    ("[1]", "is not a JSON object"),
    (line() + "\n\n" + "x", "line 3 is not JSON"),
    (b"\xff\xfe", "is UTF-16 text, and is not UTF-8"),
    (line(query_id="left out"), '"query_id" is missing. A right line: '),
    (line(query_id=7.5), '"query_id" is 7.5'),
    (line() + "\n" + line(), "q"),
    (line(vector="left out", relevant="left out"), '"vector" and "relevant" are missing. A right line: '),
    (line(vector="1 2 3"), '"vector" is no list of numbers'),
    (line(vector=[]), '"vector" is no list of numbers'),
    (line(vector=[[1.0], [2.0]]), '"vector" is no list of numbers'),
    (line(vector=[*VECTOR[:-1], float("nan")]), "holds NaN or infinity"),
    (line(vector=[*VECTOR[:-1], 1e300]), "holds NaN or infinity"),
    (line(vector=[0.0] * 24), "the vector is zero"),
    (line() + "\n" + line(query_id="r", vector=[1.0, 2.0]), "has 2 components, those above it 24"),
    (line(vector=[1.0] * 384), "384 components .* vectors of 24"),
    (line(relevant="left out"), '"relevant" is missing. A right line: '),
    (line(relevant="row 001"), '"relevant" is'),
    (line(relevant=[]), "has no relevant row"),
    (line(relevant={"row 001": 0}), "none of the 1 queries has a relevant row"),
    (line(relevant={"row 001": "much"}), "'much' is no grade"),
    (line(relevant={"row 001": float("nan")}), "is no grade"),
    (line(relevant=[True]), "True is no row id"),
    (line(relevant=[1.5]), "1.5 is no row id"),
    (line(relevant=["row 001", "row 001"]), "'row 001' twice"),
    ('{"query_id": "a", "query_id": "b"}', "names 'query_id' twice"),
    (line(relevant=["nobody"]), "1 of 1 judged rows are not in the collection"),
    (line(relevant=[10**300]), "judged rows are not in the collection"),
    (line(relevant=["x" * 100_000]), "judged rows are not in the collection"),
]

OPTIONS = [
    ("--metric map@10", "BadOption", "ndcg@K"),
    ("--metric ndcg", "BadOption", "ndcg@K"),
    ("--metric ndcg@0", "BadOption", "1 to 1000"),
    ("--method nudge-x", "BadOption", "nudge-n, nudge-m"),
    ("--method nudge-m", "BadOption", "use --method nudge-n"),
    ("--step 0", "BadOption", "above 0"),
    ("--step 3", "BadOption", "up to 2"),
    ("--step nan", "BadOption", "above 0"),
    ("--step far", "BadUsage", "--step"),
    ("--min-gain -0.1", "BadOption", "min_gain"),
    ("--min-gain 1", "BadOption", "min_gain"),
    ("--confidence 1", "BadOption", "confidence"),
    ("--max-queries 0", "BadOption", "max_queries"),
    ("--seed -1", "BadOption", "seed"),
    ("--throttle 0", "BadOption", "rows per second, a number above 0"),
    ("--throttle nan", "BadOption", "rows per second"),
    ("--throttle much", "BadUsage", "--throttle"),
    ("--colour red", "BadUsage", "--colour"),
    ("--split train", "BadOption", "has no splits"),
    ("--test {folder}/none", "BadJudgements", "does not exist"),
    ("--validation {folder}", "BadJudgements", "no BEIR folder"),
    ("--judgements s3://bucket/j.jsonl", "BadOption", "s3:// is not supported"),
    ("--test gs://bucket/j.jsonl", "BadOption", "gs:// is not supported"),
    ("--validation https://host/j.jsonl", "BadOption", "https:// is not supported"),
    ("--equal-ids either", "BadOption", "expected join or refuse"),
]


def spoil(vector):
    """Give the first judged row a vector of this kind."""

    def act(stage):
        text = stage.world.train.rows[0]
        row = stage.world.collection.rows[text]
        stage.world.collection.rows[text] = type(row)(np.full(24, vector, np.float32), row.payload, row.others)

    return act


def empty(stage):
    stage.world.collection.rows.clear()


def one_row(stage):
    for text in sorted(stage.world.collection.rows)[1:]:
        del stage.world.collection.rows[text]


def tuned(stage):
    stage.tune()


def planned(stage):
    stage.plan()


def rebuilt_wider(stage):
    stage.tune()
    stage.world = stage.make(width=32)
    stage.world.collection.name = "memory"


def rebuilt_by_inner_product(stage):
    stage.tune()
    stage.world = stage.make("dot")


def newer(stage):
    stage.tune()
    stage.change("collection.json", b'"format": 2', b'"format": 9')


def of_another(stage):
    """A folder of another collection's, copied to the place of this one's."""
    stage.tune()
    stage.take_the_folder_of("other")


def a_file(stage):
    stage.state.write_text("not a folder")


def unreadable_note(stage):
    stage.world.collection.kept["nudge_vdb/x"] = "?"


def another_tuned_it(stage):
    stage.tune()
    stage.state = stage.state.with_name("mine")


SITUATIONS = [
    (f"{TUNE} {{good}}", empty, 2, "BadJudgements|UnfitCollection", "no row|not in the collection"),
    (f"{TUNE} {{good}}", one_row, 2, "BadJudgements", "79 of 80 judged rows are not in the collection"),
    (f"{TUNE} {{good}}", spoil(np.nan), 2, "UnfitCollection", "NaN or infinity; embed it again"),
    (f"{TUNE} {{good}}", spoil(0.0), 2, "UnfitCollection", "vector is zero"),
    (f"{TUNE} {{good}}", rebuilt_wider, 2, "BadJudgements|StateConflict", "24"),
    (f"status {M}", rebuilt_wider, 2, "StateConflict", "has width 32, but the state in .* was made with 24"),
    (f"{TUNE} {{good}}", rebuilt_by_inner_product, 2, "StateConflict", "has metric 'dot'"),
    (f"{TUNE} {{good}}", newer, 7, "StateDamaged", "has format 9"),
    (f"rollback {M} --to 0", of_another, 2, "StateConflict", "was made with"),
    (f"{TUNE} {{good}}", a_file, 2, "BadOption", "is no folder"),
    (f"{TUNE} {{good}}", unreadable_note, 2, "StateConflict", "the note nudge_vdb/x"),
    (f"{TUNE} {{good}}", another_tuned_it, 2, "StateConflict", "belong to the state"),
    (f"rollback {M} --to 0", another_tuned_it, 2, "StateConflict", "holds no state"),
    (f"rollback {M} --to 0", None, 2, "StateConflict", "holds no state"),
    (f"rollback {M} --to 7", tuned, 2, "BadOption", "has no version 7; there are: 1"),
    (f"rollback {M} --to -1", tuned, 2, "BadOption", "has no version -1"),
    (f"rollback {M} --to one", tuned, 2, "BadUsage", "--to"),
    (f"rollback {M}", tuned, 2, "BadUsage", "--to"),
    (f"rollback {M} --to 0 --throttle -1", tuned, 2, "BadOption", "rows per second"),
    (f"apply {M} --throttle 0", planned, 2, "BadOption", "rows per second"),
    (f"resume {M} --throttle 0", tuned, 2, "BadOption", "rows per second"),
    (f"carry {M} --throttle 0", tuned, 2, "BadOption", "rows per second"),
    (f"verify {M} --throttle 0", tuned, 2, "BadOption", "rows per second"),
    (f"rollback {M} --to 1", planned, 2, "StateConflict", "never applied"),
    (f"apply {M}", None, 2, "BadOption", "no prepared version"),
    (f"apply {M} 0", planned, 2, "BadOption", "has no version 0"),
    (f"apply {M} 9", planned, 2, "BadOption", "has no version 9; there are: 1"),
    (f"diff {M} 0 9", tuned, 2, "BadOption", "has no version 9"),
    (f"diff {M} 0", tuned, 2, "BadUsage", "other"),
    (f"diff {M} 0 1", None, 2, "StateConflict", "holds no state"),
    (f"prune {M} --keep -1", tuned, 2, "BadOption", "keep -1: expected 0 and above"),
    (f"prune {M} --keep 1", None, 2, "StateConflict", "holds no state"),
    (f"verify {M}", None, 2, "StateConflict", "holds no state"),
    (f"resume {M}", None, 2, "StateConflict", "holds no state"),
    (f"adopt {M}", None, 2, "StateConflict", "nothing like it"),
    (f"doctor {M} --rows 0", None, 2, "BadOption", "rows 0: expected 1 and above"),
    (f"evaluate {M} --judgements {{good}} --metric x", None, 2, "BadOption", "ndcg@K"),
    (f"evaluate {M} --judgements {{folder}}/none", None, 2, "BadJudgements", "does not exist"),
    ("tune qdrant+local:///nowhere/a --judgements {folder}/none", None, 2, "BadJudgements", "does not exist"),
    ("evaluate qdrant+local:///nowhere/a --judgements s3://b/j", None, 2, "BadOption", "s3:// is not supported"),
    (f"tune {M}", None, 2, "BadUsage", "--judgements"),
    ("tuna", None, 2, "BadUsage", "tuna"),
    ("tune", None, 2, "BadUsage", "address"),
]

CASES = [
    *((f"tune {address or '-EMPTY-'} --judgements {{good}}", None, *rest) for address, *rest in ADDRESSES),
    *((f"{TUNE} {{given}}", content, 2, "BadJudgements", words) for content, words in JUDGEMENTS),
    *((f"{TUNE} {{good}} {option}", None, 2, *rest) for option, *rest in OPTIONS),
    *SITUATIONS,
]
