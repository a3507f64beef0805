"""Files of judgements: what is read, and what is refused with its file and line, or its query."""

import json

import numpy as np
import pytest

from nudge_vdb.errors import BadJudgements, BadOption
from nudge_vdb.judgements import Judgements

GOOD = '{"query_id": "q1", "vector": [1, 0], "relevant": ["a"]}'
VECTORS = [[1, 0], [0, 1], [1, 1]]
HEADER = "query-id\tcorpus-id\tscore\n"


def relevant(judgements):
    """Return {query id: {row id: grade}}."""
    return {name: dict(judgements.relevant(place)) for place, name in enumerate(judgements.query_ids)}


def jsonl(folder, *lines):
    """Write a file of judgements; a line may be text, or what is to be written as JSON."""
    path = folder / "judgements.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def beir(folder, splits, vectors=VECTORS):
    """Make *folder* a BEIR folder with the qrels *splits* {name: text below the header}."""
    (folder / "qrels").mkdir()
    lines = [json.dumps({"_id": name, "text": f"what is {name}?"}) for name in ("q1", "q2", "q3")]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    np.save(folder / "queries.npy", np.array(vectors, np.float32))
    for name, text in splits.items():
        (folder / "qrels" / f"{name}.tsv").write_text(HEADER + text, encoding="utf-8")
    return folder


def test_a_file_holds_one_query_a_line_and_blank_lines_do_not_count(tmp_path):
    path = jsonl(
        tmp_path,
        f"{GOOD}\n\n",
        '{"query_id": "日本", "vector": [0.5, 1.5], "relevant": {"b": 2, "c": 0, "d": 0.5}, "text": "extra"}\r\n  \n',
        '{"query_id": "q3", "vector": [2, 2], "relevant": [7, 18446744073709551615]}',
    )
    judgements = Judgements.load(path)
    assert relevant(judgements) == {
        "q1": {"a": 1},
        "日本": {"b": 2, "d": 0.5},
        "q3": {"7": 1, "18446744073709551615": 1},
    }
    assert judgements.vectors.tolist() == [[1, 0], [0.5, 1.5], [2, 2]]


def test_a_file_and_its_arrays_are_the_same_judgements(tmp_path):
    path = jsonl(tmp_path, f"{GOOD}\n", '{"query_id": "q2", "vector": [3, 4], "relevant": {"b": 2}}\n')
    arrays = Judgements.from_arrays([[1, 0], [3, 4]], [["a"], {"b": 2}], ["q1", "q2"])
    assert Judgements.load(str(path)).digest() == arrays.digest()


def test_a_beir_folder_gives_the_judged_queries_their_vectors(tmp_path):
    folder = beir(tmp_path, {"test": "q3\ta\t1\nq1\tb\t2\nq3\tc\t1\nq2\td\t0\n"})
    judgements = Judgements.load(folder)
    assert relevant(judgements) == {"q3": {"a": 1, "c": 1}, "q1": {"b": 2}}
    assert judgements.vectors.tolist() == [[1, 1], [1, 0]]


def test_splits_are_joined_in_the_order_asked(tmp_path):
    folder = beir(tmp_path, {"train": "q1\ta\t1\n", "dev": "q2\tb\t1\nq1\tc\t1\n", "test": "q3\td\t1\n"})
    assert relevant(Judgements.load(folder, ["train", "dev"])) == {"q1": {"a": 1, "c": 1}, "q2": {"b": 1}}
    assert relevant(Judgements.load(folder, ["test"])) == {"q3": {"d": 1}}


def test_one_file_of_qrels_is_its_split(tmp_path):
    folder = beir(tmp_path, {"dev": "q1\ta\t1\n", "test": "q2\tb\t1\n"})
    loaded = Judgements.load(folder / "qrels" / "test.tsv")
    assert loaded.digest() == Judgements.load(folder, ["test"]).digest()


def test_one_file_of_qrels_is_found_from_inside_its_folder(tmp_path, monkeypatch):
    folder = beir(tmp_path, {"test": "q2\tb\t1\n"})
    monkeypatch.chdir(folder / "qrels")
    assert relevant(Judgements.load("test.tsv")) == {"q2": {"b": 1}}


def test_qrels_may_lack_the_header(tmp_path):
    folder = beir(tmp_path, {})
    (folder / "qrels" / "test.tsv").write_text("q1\ta\t1\nq2\tb\t1\n\n")
    assert relevant(Judgements.load(folder)) == {"q1": {"a": 1}, "q2": {"b": 1}}


def test_a_quotation_mark_in_a_row_id_is_a_character_like_any_other(tmp_path):
    folder = beir(tmp_path, {"test": 'q1\t"a\t1\nq2\t"b"\t1\n'})
    assert relevant(Judgements.load(folder)) == {"q1": {'"a': 1}, "q2": {'"b"': 1}}


def line(**changes):
    return {"query_id": "q2", "vector": [0, 1], "relevant": ["a"], **changes}


def without(member):
    return {name: value for name, value in line().items() if name != member}


BAD_LINES = {
    "not JSON": ("{'query_id': 1}", "is not JSON"),
    "half a line": ('{"query_id": "q2", "vec', "is not JSON"),
    "no object": ([1, 2], "is not a JSON object"),
    "no query id": (without("query_id"), '"query_id" is missing. A right line: {"query_id": "q1", "vector": ['),
    "a fraction as query id": (line(query_id=7.5), '"query_id" is 7.5; expected text or a whole number'),
    "no vector": (without("vector"), '"vector" is missing. A right line'),
    "a number as vector": (line(vector=1.5), '"vector" is no list of numbers'),
    "an empty vector": (line(vector=[]), '"vector" is no list of numbers'),
    "words as vector": (line(vector=["one", "two"]), '"vector" is no list of numbers'),
    "lists in the vector": (line(vector=[[1, 2], [3, 4]]), '"vector" is no list of numbers'),
    "lists of two lengths in the vector": (line(vector=[[1], [3, 4]]), '"vector" is no list of numbers'),
    "a number beyond any float": (line(vector=[10**400, 1]), '"vector" is no list of numbers'),
    "another width": (line(vector=[1, 2, 3]), "the vector has 3 components, those above it 2"),
    "NaN": ('{"query_id": "q2", "vector": [NaN, 1], "relevant": ["a"]}', "the vector holds NaN or infinity"),
    "infinity": ('{"query_id": "q2", "vector": [1, -Infinity], "relevant": ["a"]}', "the vector holds NaN or infinity"),
    "nothing in the vector": (line(vector=[None, 1]), "component 1 is null"),
    "a number beyond float32": (line(vector=[1e300, 1]), "the vector holds NaN or infinity"),
    "a zero vector": (line(vector=[0, 0.0]), "the vector is zero"),
    "no relevant": (without("relevant"), '"relevant" is missing. A right line'),
    "text as relevant": (line(relevant="a"), "\"relevant\" is 'a'"),
    "no relevant row": (line(relevant=[]), "query 'q2' has no relevant row"),
    "a grade that is text": (line(relevant={"a": "2"}), "'2' is no grade"),
    "a grade beyond any float": (line(relevant={"a": 10**400}), "is no grade"),
    "a row twice": (line(relevant=["a", "b", "a"]), "names row 'a' twice"),
    "a row id that is a fraction": (line(relevant=[1.5]), "1.5 is no row id"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_line_that_cannot_be_used_is_refused_and_named(case, tmp_path):
    bad, words = BAD_LINES[case]
    path = jsonl(tmp_path, f"{GOOD}\n\n", bad, "\n")
    with pytest.raises(BadJudgements) as refusal:
        Judgements.load(path)
    assert f"{path} line 3" in str(refusal.value)
    assert words in str(refusal.value)


def test_a_query_id_given_twice_is_refused_and_named(tmp_path):
    with pytest.raises(BadJudgements, match="query id 'q1' is given twice"):
        Judgements.load(jsonl(tmp_path, f"{GOOD}\n{GOOD}\n"))


def test_a_row_graded_twice_in_one_object_is_refused_not_overwritten(tmp_path):
    bad = '{"query_id": "q2", "vector": [0, 1], "relevant": {"a": 3, "a": 1}}'
    with pytest.raises(BadJudgements, match=r"line 2.*'a'.*twice"):
        Judgements.load(jsonl(tmp_path, f"{GOOD}\n{bad}\n"))


def test_a_file_that_is_not_text_is_refused_and_named(tmp_path):
    path = tmp_path / "judgements.jsonl"
    path.write_bytes(GOOD.replace("q1", "é").encode("latin-1"))
    with pytest.raises(BadJudgements) as refusal:
        Judgements.load(path)
    assert str(path) in str(refusal.value)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(BadJudgements, match="there are no judgements"):
        Judgements.load(jsonl(tmp_path, "\n\n"))


def test_a_path_that_is_not_there_is_refused_and_named(tmp_path):
    with pytest.raises(BadJudgements, match="nowhere does not exist; expected a JSONL file or a BEIR folder"):
        Judgements.load(tmp_path / "nowhere")


def test_splits_of_a_file_are_refused(tmp_path):
    with pytest.raises(BadOption, match="is a file and has no splits"):
        Judgements.load(jsonl(tmp_path, GOOD), ["test"])


def test_a_split_that_is_not_there_lists_those_there_are(tmp_path):
    folder = beir(tmp_path, {"train": "q1\ta\t1\n", "dev": "q2\tb\t1\n"})
    with pytest.raises(BadOption, match="has no split 'test'; it has dev, train"):
        Judgements.load(folder, ["train", "test"])


def test_one_of_several_splits_must_be_chosen(tmp_path):
    folder = beir(tmp_path, {"train": "q1\ta\t1\n", "dev": "q2\tb\t1\n"})
    with pytest.raises(BadOption, match="has the splits dev, train; say which judge with --split"):
        Judgements.load(folder)


BAD_QRELS = {
    "an unknown query": ("q1\ta\t1\nq9\ta\t1\n", "test.tsv line 3: query 'q9' is not in"),
    "a row twice": ("q1\ta\t1\nq1\ta\t2\n", "test.tsv line 3: row 'a' is judged twice for query 'q1'"),
    "two columns": ("q1\ta\t1\nq2\tb\n", "test.tsv line 3: expected query-id, corpus-id and score"),
    "four columns": ("q1\t0\ta\t1\n", "test.tsv line 2: expected query-id, corpus-id and score"),
    "spaces for tabs": ("q1 a 1\n", "test.tsv line 2: expected query-id, corpus-id and score"),
    "a score that is no number": ("q1\ta\tyes\n", "test.tsv line 2: expected query-id, corpus-id and score"),
    "an endless score": ("q1\ta\tinf\n", "test.tsv line 2: expected query-id, corpus-id and score"),
    "a score that is NaN": ("q1\ta\tnan\n", "test.tsv line 2: expected query-id, corpus-id and score"),
    "a row judged nothing, then something": ("q1\ta\t0\nq1\ta\t2\n", "line 3: row 'a' is judged twice"),
    "nothing relevant": ("q1\ta\t0\n", "there are no judgements"),
    "nothing at all": ("", "there are no judgements"),
}


@pytest.mark.parametrize("case", BAD_QRELS)
def test_qrels_that_cannot_be_used_are_refused_with_their_line(case, tmp_path):
    text, words = BAD_QRELS[case]
    with pytest.raises(BadJudgements) as refusal:
        Judgements.load(beir(tmp_path, {"test": text}))
    assert words in str(refusal.value)


def test_a_row_judged_in_two_splits_is_refused_with_the_line_of_the_second(tmp_path):
    folder = beir(tmp_path, {"dev": "q1\ta\t1\n", "test": "q2\tb\t1\nq1\ta\t1\n"})
    with pytest.raises(BadJudgements, match=r"test\.tsv line 3: row 'a' is judged twice for query 'q1'"):
        Judgements.load(folder, ["dev", "test"])


def test_qrels_that_are_not_text_are_refused_and_named(tmp_path):
    folder = beir(tmp_path, {"test": ""})
    (folder / "qrels" / "test.tsv").write_bytes(b"q1\t\xe9\t1\n")
    with pytest.raises(BadJudgements, match=r"test\.tsv"):
        Judgements.load(folder)


def test_a_folder_without_qrels_is_no_beir_folder(tmp_path):
    with pytest.raises(BadJudgements, match=r"is no BEIR folder: it holds no qrels/<split>\.tsv"):
        Judgements.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("queries.jsonl", "a BEIR folder holds queries.jsonl, qrels/ and queries.npy"),
        ("queries.npy", "embed the lines of queries.jsonl with the collection's own model"),
    ],
)
def test_a_file_missing_from_a_beir_folder_is_named_with_what_to_do(name, words, tmp_path):
    folder = beir(tmp_path, {"test": "q1\ta\t1\n"})
    (folder / name).unlink()
    with pytest.raises(BadJudgements) as refusal:
        Judgements.load(folder)
    assert f"{folder / name} does not exist" in str(refusal.value)
    assert words in str(refusal.value)


BAD_QUERIES = {
    "an id twice": ('{"_id": "q1"}\n{"_id": "q1"}\n', 'line 2: "_id" is given twice'),
    "no id": ('{"_id": "q1"}\n{"text": "x"}\n', 'line 2: "_id" is missing'),
    "a fraction as id": ('{"_id": "q1"}\n{"_id": 7.5}\n', 'line 2: "_id": 7.5 is no query id'),
    "an id that is nothing": ('{"_id": "q1"}\n{"_id": null}\n', 'line 2: "_id" is missing'),
    "not JSON": ("q1\n", "line 1 is not JSON"),
    "no object": ('"q1"\n', "line 1 is not a JSON object"),
}


@pytest.mark.parametrize("case", BAD_QUERIES)
def test_queries_of_a_beir_folder_that_cannot_be_used_are_refused_with_their_line(case, tmp_path):
    text, words = BAD_QUERIES[case]
    folder = beir(tmp_path, {"test": "q1\ta\t1\n"})
    (folder / "queries.jsonl").write_text(text)
    with pytest.raises(BadJudgements) as refusal:
        Judgements.load(folder)
    assert f"{folder / 'queries.jsonl'} {words}" in str(refusal.value)


BAD_VECTORS = {
    "too few": ([[1, 0], [0, 1]], "queries.npy has shape (2, 2); queries.jsonl has 3 queries"),
    "one dimension": ([1, 0, 1], "queries.npy has shape (3,); queries.jsonl has 3 queries"),
    "words": ([["a", "b"]] * 3, "queries.npy is no .npy file of numbers"),
    "NaN": ([[1, 0], [0, np.nan], [1, 1]], "query 'q2': its vector holds NaN or infinity"),
    "infinity": ([[1, 0], [0, np.inf], [1, 1]], "query 'q2': its vector holds NaN or infinity"),
    "zero": ([[1, 0], [0, 0], [1, 1]], "query 'q2': its vector is zero"),
}


@pytest.mark.parametrize("case", BAD_VECTORS)
def test_query_vectors_that_cannot_be_used_are_refused_with_their_file_or_query(case, tmp_path):
    vectors, words = BAD_VECTORS[case]
    folder = beir(tmp_path, {"test": "q1\ta\t1\nq2\tb\t1\n"})
    np.save(folder / "queries.npy", vectors)
    with pytest.raises(BadJudgements) as refusal:
        Judgements.load(folder)
    assert words in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"not numpy", b"\x93NUMPY\x01\x00"])
def test_a_file_of_vectors_that_numpy_cannot_read_is_refused_and_named(content, tmp_path):
    folder = beir(tmp_path, {"test": "q1\ta\t1\n"})
    (folder / "queries.npy").write_bytes(content)
    with pytest.raises(BadJudgements, match=r"queries\.npy is no \.npy file of numbers"):
        Judgements.load(folder)


def test_an_archive_of_arrays_is_refused_in_the_place_of_one_array(tmp_path):
    folder = beir(tmp_path, {"test": "q1\ta\t1\n"})
    np.savez(tmp_path / "queries.npz", np.array(VECTORS))
    (tmp_path / "queries.npz").replace(folder / "queries.npy")
    with pytest.raises(BadJudgements, match=r"queries\.npy is no \.npy file of numbers"):
        Judgements.load(folder)


def test_a_query_nobody_judged_may_have_any_vector(tmp_path):
    folder = beir(tmp_path, {"test": "q1\ta\t1\n"}, vectors=[[1, 0], [0, 0], [np.nan, 1]])
    assert relevant(Judgements.load(folder)) == {"q1": {"a": 1}}
