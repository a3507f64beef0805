"""The command line, as a script sees it: exit status, JSON on stdout, everything else on stderr."""

import gc
import io
import json
import shlex
import sys
import warnings
from uuid import UUID

import numpy as np
import pytest
import typer
from qdrant_client import models
from rich.console import Console

from nudge_vdb import cli, render
from nudge_vdb.backends import connect, fill
from nudge_vdb.contract import Metric, Rows
from nudge_vdb.run import open_state
from nudge_vdb.streams import unfailing_streams


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run nudge-vdb; return its exit status, stdout and stderr."""
    monkeypatch.setenv("NUDGE_VDB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nudge-vdb", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        told = capsys.readouterr()
        return stopped.value.code or 0, told.out, told.err

    return run


@pytest.fixture
def said(run):
    """Run nudge-vdb --json; return its exit status and its one JSON object."""

    def said(*arguments):
        status, out, _ = run(*arguments, "--json")
        assert out.count("\n") == 1
        return status, json.loads(out)

    return said


@pytest.fixture
def address(world, tmp_path):
    """The small world in a local-mode folder."""
    where = f"qdrant+local://{tmp_path}/db/articles?vector=text"
    rows = world.fixture.read()
    vectors = np.stack([row.vector for row in rows.values()])
    payloads = [dict(row.payload) for row in rows.values()]
    fill(where, Rows(list(range(len(rows))), vectors, payloads), Metric.COSINE).close()
    return where


def jsonl(path, judgements):
    lines = [
        {
            "query_id": name,
            "vector": judgements.vectors[place].tolist(),
            "relevant": [int(text.removeprefix("row ")) for text, _ in judgements.relevant(place)],
        }
        for place, name in enumerate(judgements.query_ids)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def train(world, tmp_path):
    return jsonl(tmp_path / "train.jsonl", world.train)


@pytest.fixture
def test_file(world, tmp_path):
    return jsonl(tmp_path / "test.jsonl", world.test)


@pytest.fixture
def noise(world, tmp_path):
    """Judgements without signal."""
    rng = np.random.default_rng(0)
    lines = [
        {"query_id": str(number), "vector": rng.normal(size=24).tolist(), "relevant": [int(rng.integers(200))]}
        for number in range(60)
    ]
    path = tmp_path / "noise.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


FIXED_KEYS = {
    "version", "status", "method", "step", "metric", "before", "after", "gain", "gain_low", "gain_high", "proven",
    "cold_before", "cold_after", "rows", "queries", "moved", "written", "missing", "changed", "seconds",
}  # fmt: skip


def test_tune_writes_a_proven_plan_and_rollback_undoes_it(said, address, train, test_file):
    status, told = said("tune", address, "--judgements", train, "--test", test_file)
    assert status == 0
    assert set(told) >= FIXED_KEYS
    assert (told["status"], told["proven"], told["version"]) == ("applied", True, 1)
    assert told["written"] == told["moved"] == 80
    assert {"page out", "compute", "snapshot", "write", "verify"} <= set(told["seconds"])
    after = said("evaluate", address, "--judgements", test_file)[1]
    assert after["score"] == pytest.approx(told["test"]["after"], abs=1e-9)
    status, undone = said("rollback", address, "--to", 0)
    assert (status, undone["written"], undone["version"]) == (0, 80, 0)
    before = said("evaluate", address, "--judgements", test_file)[1]
    assert before["score"] == pytest.approx(told["test"]["before"], abs=1e-9)


def test_plan_then_apply_is_tune_in_two_steps(said, address, train):
    status, planned = said("plan", address, "--judgements", train)
    assert (status, planned["status"], planned["written"]) == (0, "prepared", 0)
    assert set(planned) >= FIXED_KEYS
    status, applied = said("apply", address)
    assert (status, applied["status"], applied["written"]) == (0, "applied", 80)
    assert set(applied) >= FIXED_KEYS


def test_no_proven_gain_exits_3_with_nothing_written(said, address, noise):
    before = said("evaluate", address, "--judgements", noise)[1]
    status, told = said("tune", address, "--judgements", noise)
    assert (status, told["status"], told["proven"], told["written"]) == (3, "unproven", False, 0)
    assert said("evaluate", address, "--judgements", noise)[1] == before
    assert said("status", address)[1]["live"] == 0
    status, told = said("apply", address)
    assert (status, told["error"], told["status"]) == (3, "NotProven", 3)


def test_force_writes_what_is_not_proven(said, address, noise):
    status, told = said("tune", address, "--judgements", noise, "--step", 0.2, "--force")
    assert (status, told["status"], told["proven"]) == (0, "applied", False)
    assert told["written"] == told["moved"] > 0


def test_skipped_rows_exit_4_and_are_named(said, address, train, world):
    said("plan", address, "--judgements", train)
    collection = connect(address)
    collection._client.delete("articles", [0])
    collection.close()
    status, told = said("apply", address)
    assert (status, told["missing"], told["skipped"]) == (4, 1, {"missing": ["0"]})


def test_a_held_lock_exits_5_and_names_the_holder(said, address, train, tmp_path):
    collection = connect(address)
    state = open_state(collection, tmp_path / "state")
    collection.close()
    with state.locked():
        status, told = said("tune", address, "--judgements", train)
    assert (status, told["error"], told["status"]) == (5, "Locked", 5)
    assert "process" in told["message"]


def test_an_engine_that_is_away_exits_6(said, address):
    collection = connect(address)
    status, told = said("status", address)
    collection.close()
    with warnings.catch_warnings():  # the client forgets to close the lock file that it could not lock
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    assert (status, told["error"]) == (6, "Unreachable")


def test_a_damaged_state_exits_7_and_names_the_file(said, address, train, tmp_path):
    said("tune", address, "--judgements", train)
    damaged = next((tmp_path / "state").glob("*/versions/000001/base.npy"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    status, told = said("rollback", address, "--to", 0)
    assert (status, told["error"]) == (7, "StateDamaged")
    assert "base.npy" in told["message"]


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        (["tune", "articles", "--judgements", "JUDGEMENTS"], "BadAddress", "qdrant://"),
        (["tune", "ADDRESS&colour=red", "--judgements", "JUDGEMENTS"], "BadAddress", "known: vector"),
        (["tune", "qdrant+local:///nowhere/x", "--judgements", "JUDGEMENTS"], "BadAddress", "meta.json"),
        (["tune", "weaviate://h/x", "--judgements", "JUDGEMENTS"], "BackendUnavailable", "qdrant"),
        (["tune", "ADDRESS", "--judgements", "no/such/file"], "BadJudgements", "does not exist"),
        (["tune", "ADDRESS", "--judgements", "JUDGEMENTS", "--split", "train"], "BadOption", "--split"),
        (["tune", "ADDRESS", "--judgements", "JUDGEMENTS", "--metric", "ndcg"], "BadOption", "ndcg@K"),
        (["tune", "ADDRESS", "--judgements", "JUDGEMENTS", "--method", "nudge-m"], "BadOption", "nudge-n"),
        (["tune", "ADDRESS"], "BadUsage", "--judgements"),
        (["tune", "ADDRESS", "--judgements", "JUDGEMENTS", "--steps", "3"], "BadUsage", "--steps"),
        (["apply", "ADDRESS"], "BadOption", "no prepared version"),
        (["apply", "ADDRESS", "3"], "BadOption", "no version 3"),
        (["rollback", "ADDRESS", "--to", "3"], "StateConflict", "in another folder"),
        (["fly", "ADDRESS"], "BadUsage", "fly"),
        (["tune", "ADDRESS", "--judgements", "JUDGEMENTS", "--carry", "on", "--max-rows", "9"], "BadOption", "auto"),
        (["backends", "--state", "here"], "BadUsage", "--state"),
        (["diff", "ADDRESS", "0", "1", "--limit", "-1"], "BadUsage", "limit"),
        (["evaluate", "ADDRESS", "--judgements", "JUDGEMENTS", "--fail-below", "45"], "BadOption", "0 to 1"),
    ],
)
def test_bad_input_exits_2_with_a_message_that_helps(said, address, train, arguments, error, word):
    names = {"ADDRESS": address, "JUDGEMENTS": str(train)}
    given = [names.get(each, each.replace("ADDRESS", address)) for each in arguments]
    status, told = said(*given)
    assert (status, told["status"], told["error"]) == (2, 2, error)
    assert word in told["message"]


def test_without_json_errors_go_to_stderr_and_stdout_stays_empty(run, tmp_path):
    status, out, err = run("status", f"qdrant+local://{tmp_path}/nothing/x")
    assert (status, out) == (2, "")
    assert "BadAddress" in err
    assert "meta.json" in err


def test_people_read_the_figures_and_how_to_undo(run, address, train, test_file):
    status, out, _ = run("tune", address, "--judgements", train, "--test", test_file)
    assert status == 0
    for words in (
        "before",
        "after",
        "test",
        "Proven",
        "80 of 200 rows move",
        f"rollback '{address}' --to 0",
        "nobody judged",
    ):
        assert words in out
    assert "version 1 is live" in run("status", address)[1]
    history = run("history", address)[1]
    assert "version 1, live: ndcg@10, 80 rows moved" in history
    assert "for rows that nobody judged" in history
    assert max(map(len, history.splitlines()[1:])) <= 80
    assert "80 rows hold their tuned vector" in run("verify", address)[1]
    assert "ndcg@10" in run("evaluate", address, "--judgements", test_file)[1]


def test_a_deep_look_says_that_the_state_is_whole(run, said, address, train):
    said("tune", address, "--judgements", train)
    assert "every file of the state is as it was written" in run("verify", address, "--deep")[1]
    assert "as it was written" not in run("verify", address)[1]
    assert said("verify", address, "--deep")[1]["deep"]


def test_an_option_that_there_is_not_is_answered_with_where_the_options_of_the_command_stand(run, address):
    status, _, err = run("plan", address, "--foo")
    assert status == 2
    assert "plan --help" in err


def test_a_terminal_that_lacks_a_character_gets_another_instead_of_a_failure(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="latin-1"))
    with unfailing_streams():
        print("• 3 rows → there", flush=True)
    assert written.getvalue() == b"? 3 rows ? there\n"


def test_evaluate_gives_several_metrics_at_once(said, address, test_file):
    told = said("evaluate", address, "--judgements", test_file, "--metric", "ndcg@10,recall@5,mrr@10")[1]
    assert set(told["scores"]) == {"ndcg@10", "recall@5", "mrr@10"}
    assert told["queries"] == 80
    assert told["rows"] == 200


def test_evaluate_fails_below_the_score_that_is_asked_for(said, run, address, test_file):
    status, told = said("evaluate", address, "--judgements", test_file)
    assert (status, told["passed"], told["fail_below"]) == (0, True, None)
    score = told["score"]
    assert said("evaluate", address, "--judgements", test_file, "--fail-below", score)[0] == 0
    status, told = said("evaluate", address, "--judgements", test_file, "--fail-below", score + 1e-6)
    assert (status, told["passed"]) == (3, False)
    assert "--fail-below" in run("evaluate", address, "--judgements", test_file, "--fail-below", 0.999)[1]


def test_evaluate_scores_the_base_while_another_version_is_live(said, run, address, train, test_file):
    base = said("evaluate", address, "--judgements", test_file)[1]["score"]
    said("tune", address, "--judgements", train)
    assert said("evaluate", address, "--judgements", test_file, "--version", 0)[1]["score"] == base
    assert said("evaluate", address, "--judgements", test_file)[1]["score"] > base
    assert "version 0, over" in run("evaluate", address, "--judgements", test_file, "--version", 0)[1]


COMMANDS = typer.main.get_command(cli.app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_ends_with_examples_that_the_command_takes(run, name):
    status, out, _ = run(name, "--help")
    lines = [line.strip() for line in out.partition("Example")[2].splitlines()[1:] if line.strip()]
    assert (status, bool(lines)) == (0, True)
    for line in lines:
        _, verb, *arguments = shlex.split(line)
        assert verb == name
        COMMANDS[name].make_context(name, arguments)  # raises for what the command does not take


def test_history_lists_every_version(said, address, train):
    said("tune", address, "--judgements", train)
    said("rollback", address, "--to", 0)
    told = said("history", address)[1]
    assert [(each["version"], each["status"]) for each in told["versions"]] == [(1, "rolled-back")]
    assert told["versions"][0]["judgements_from"] == "train.jsonl"


def test_history_says_what_every_version_was_made_with(run, said, address, train):
    made = said("tune", address, "--judgements", train, "--carry", "on", "--cold-share", 0.4)[1]
    shown = run("history", address)[1]
    assert f"nudge-n at step {made['step']:g}, cold share 0.4, 120 rows carried" in shown
    assert f"train.jsonl, digest {made['judgements'][:12]}" in shown


def test_backends_lists_what_is_installed(said):
    told = said("backends")[1]
    assert {each["backend"]: each["usable"] for each in told["backends"]} == {"milvus": True, "qdrant": True}


def test_beir_splits_are_chosen_by_name(said, address, world, tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    everyone = [("train", world.train), ("test", world.test)]
    queries = [{"_id": name} for _, judged in everyone for name in judged.query_ids]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    np.save(folder / "queries.npy", np.concatenate([judged.vectors for _, judged in everyone]))
    for split, judged in everyone:
        lines = [
            f"{judged.query_ids[query]}\t{int(row.removeprefix('row '))}\t1\n"
            for query, row in zip(judged.query, judged.rows, strict=True)
        ]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    status, told = said("tune", address, "--judgements", folder, "--split", "train", "--test", folder)
    assert status == 0
    assert told["queries"] == 240
    assert told["test"]["queries"] == 80
    status, told = said("tune", address, "--judgements", folder)
    assert (status, told["error"]) == (2, "BadOption")
    assert "test, train" in told["message"]


def test_secrets_in_an_address_are_refused_and_not_repeated(run):
    status, out, err = run("status", "qdrant://me:hunter2@localhost/articles")
    assert status == 2
    assert "may not hold a password" in err
    assert "hunter2" not in out + err


def test_the_state_folder_can_be_given(said, address, train, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    said("tune", address, "--judgements", train, "--state", elsewhere)
    assert said("status", address, "--state", elsewhere)[1]["live"] == 1
    told = said("status", address)[1]
    assert told["live"] == 0
    assert "belong to the state" in told["message"]
    assert str(elsewhere) in told["message"]


def test_ids_may_be_spelled_otherwise_than_the_engine_does(said, tmp_path, world):
    """UUIDs in capitals are the same rows, to plan and to evaluate."""
    names = [str(UUID(int=number + 1)) for number in range(200)]
    where = f"qdrant+local://{tmp_path}/uuids/articles?vector=text"
    vectors = np.stack([row.vector for row in world.fixture.read().values()])
    fill(where, Rows(names, vectors, [{}] * 200), Metric.COSINE).close()
    told = {}
    for spelling in (str, str.upper):
        lines = [
            {"query_id": name, "vector": vector.tolist(), "relevant": [spelling(names[int(row.removeprefix("row "))])]}
            for name, vector, row in zip(world.train.query_ids, world.train.vectors, world.train.rows, strict=True)
        ]
        path = tmp_path / f"{spelling.__name__}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        told[spelling] = (
            said("evaluate", where, "--judgements", path)[1]["score"],
            said("plan", where, "--judgements", path)[1]["before"],
        )
    assert told[str] == told[str.upper]
    assert told[str][0] == pytest.approx(told[str][1])


def test_an_interruption_exits_130_and_says_how_to_go_on(said, address, train, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("nudge_vdb.survey.page_out", interrupted)
    status, told = said("tune", address, "--judgements", train)
    assert (status, told["error"], told["status"]) == (130, "Interrupted", 130)
    assert "nudge-vdb status" in told["message"]


def test_a_defect_of_ours_is_still_one_json_object(said, address, train, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("not foreseen")

    monkeypatch.setattr("nudge_vdb.survey.page_out", broken)
    status, told = said("tune", address, "--judgements", train)
    assert (status, told) == (1, {"error": "ZeroDivisionError", "message": "not foreseen", "status": 1})


def test_without_a_command_the_commands_are_listed(run):
    status, out, err = run()
    assert (status, err) == (0, "")
    assert "rollback" in out


def test_the_version_is_told(run):
    assert run("--version")[1].startswith("nudge-vdb 0.")


def test_carrying_is_asked_for_priced_and_repeated_for_new_rows(run, said, address, train, test_file, tmp_path):
    status, out, _ = run("plan", address, "--judgements", train, "--carry", "on", "--cold-share", 0.2)
    assert status == 0
    for words in ("120 of them are carried", "cold share 0.2 (asked for)", "applying writes 200 rows in about", "MB"):
        assert words in out
    assert said("apply", address)[1]["written"] == 200
    assert said("carry", address)[1]["written"] == 0
    collection = connect(address)
    vector = np.random.default_rng(0).normal(size=24)
    collection._client.upsert("articles", [models.PointStruct(id=1000, vector={"text": vector.tolist()})])
    collection.close()
    status, told = said("carry", address)
    assert (status, told["written"], told["newly_carried"]) == (0, 1, 1)
    assert "version 2 is live" in run("status", address)[1]
    status, told = said("export-map", address, tmp_path / "map.npy", "--version", 1, "--test", test_file)
    assert (status, told["proven"]) == (0, True)
    assert np.load(tmp_path / "map.npy").shape == (24, 24)
    assert run("export-map", address, tmp_path / "map.npy", "--version", 1)[0] == 2
    assert "M·q" in run("export-map", address, tmp_path / "again.npy", "--version", 1)[1]


def test_a_version_of_early_days_can_be_shown(run, address, train, tmp_path):
    """Before both scores of a plan were told."""
    run("plan", address, "--judgements", train)
    manifest = next((tmp_path / "state").glob("*/versions/000001/manifest.json"))
    facts = json.loads(manifest.read_bytes())
    new = ("warm_", "cold_", "carr", "alternatives", "minutes", "rows_to_write", "snapshot", "reach", "ridge")
    early = {name: value for name, value in facts.items() if not name.startswith(new)}
    console = Console(record=True, width=200)
    render.plan({**early, "cold_before": 0.1, "cold_after": 0.1, "status": "prepared"}, console)
    assert "Proven" in console.export_text()


@pytest.mark.parametrize(
    ("rivals", "words"),
    [
        ("scan", "rivals were found by a scan (asked for)"),
        ("exact", "rivals were found by an exact search in the engine (asked for)"),
        (
            "search",
            "rivals were found by a search in the engine's index, which finds 1.000 of the best rows (asked for)",
        ),
        ("auto", "rivals were found by a scan (the rows are in this process)"),
    ],
)
def test_how_rivals_were_found_is_said(run, said, address, train, rivals, words):
    status, out, _ = run("plan", address, "--judgements", train, "--rivals", rivals)
    assert (status, words in out) == (0, True)
    _, told = said("plan", address, "--judgements", train, "--rivals", rivals)
    assert told["rivals"] == ("scan" if rivals == "auto" else rivals)
