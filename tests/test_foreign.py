"""Files that others wrote: read as a person would read them, or refused in words that name the file and the line."""

import gzip
import io
import json
import os
import socket
import struct
import sys
import threading

import numpy as np
import pytest

from nudge_vdb.errors import BadJudgements, BadOption, NudgeError
from nudge_vdb.foreign import Unreadable, mapped_array, number_in, parsed, shown
from nudge_vdb.formats import load
from nudge_vdb.judgements import Judgements

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GOOD = '{"query_id": "q1", "vector": [1, 0], "relevant": ["a"]}'
LONG, DEEP = "9" * 5000, "[" * 100_000
TWO = {"q1": {"a": 1}, "q2": {"b": 2}}


def line(name="q2", vector="[0, 1]", relevant='{"b": 2}', more=""):
    return f'{{"query_id": {json.dumps(name)}, "vector": {vector}, "relevant": {relevant}{more}}}'


def relevant_of(judgements):
    """Return {query id: {row id: grade}}."""
    return {name: dict(judgements.relevant(place)) for place, name in enumerate(judgements.query_ids)}


BOTH = f"{GOOD}\n{line()}\n".encode()
ARRAY = f"[{GOOD}, {line()}]".encode()

READ = {
    "plain": (BOTH, TWO),
    "no line end at the end": (BOTH.rstrip(), TWO),
    "line ends of Windows": (BOTH.replace(b"\n", b"\r\n"), TWO),
    "a byte order mark": (b"\xef\xbb\xbf" + BOTH, TWO),
    "two files with byte order marks, one behind the other": (
        b"\xef\xbb\xbf" + GOOD.encode() + b"\n\xef\xbb\xbf" + line().encode(),
        TWO,
    ),
    "gzip": (gzip.compress(BOTH), TWO),
    "two parts of gzip": (gzip.compress(GOOD.encode() + b"\n") + gzip.compress(line().encode()), TWO),
    "zstd": (zstd.compress(BOTH), TWO),
    "an array": (ARRAY, TWO),
    "an array over many lines": (json.dumps(json.loads(ARRAY), indent=2).encode() + b"\n\n", TWO),
    "an array behind blank lines": (b"\n \n" + ARRAY, TWO),
    "an array with a byte order mark": (b"\xef\xbb\xbf" + ARRAY, TWO),
    "an array in gzip": (gzip.compress(ARRAY), TWO),
    "a whole number as query id": (line(7).encode(), {"7": {"b": 2}}),
    "a negative number as query id": (line(-7).encode(), {"-7": {"b": 2}}),
    "two halves of one character": (
        b'{"query_id": "\\ud83d\\ude00", "vector": [1], "relevant": ["a"]}',
        {"😀": {"a": 1}},
    ),
    "NaN in a field nobody reads": (line(more=', "price": NaN').encode(), {"q2": {"b": 2}}),
    "null in a field nobody reads": (line(more=', "text": null').encode(), {"q2": {"b": 2}}),
    "numbers with exponents": (line(vector="[1E-3, -2.5e+1]").encode(), {"q2": {"b": 2}}),
    "a grade that is a fraction": (line(relevant='{"b": 0.5}').encode(), {"q2": {"b": 0.5}}),
    "a query judged not relevant": ((GOOD + "\n" + line(relevant='{"b": 0, "c": -1}')).encode(), {"q1": {"a": 1}}),
}


@pytest.mark.parametrize("case", READ)
def test_a_file_is_read_as_a_person_would(case, tmp_path):
    content, expected = READ[case]
    (tmp_path / "j").write_bytes(content)
    assert relevant_of(Judgements.load(tmp_path / "j")) == expected


SECOND = {
    "a whole number of 5,000 digits in the vector": (line(vector=f"[{LONG}, 1]"), "thousands of digits"),
    "a row id of 5,000 digits": (line(relevant=f"[{LONG}]"), "thousands of digits"),
    "a grade of 5,000 digits": (line(relevant=f'{{"b": {LONG}}}'), "thousands of digits"),
    "a query id of 5,000 digits": (line().replace('"q2"', LONG), "thousands of digits"),
    "5,000 digits in a field nobody reads": (line(more=f', "x": {LONG}'), "thousands of digits"),
    "nesting in a field nobody reads": (line(more=f', "x": {DEEP}'), "nested too deeply"),
    "nesting in the vector": (line(vector=DEEP), "nested too deeply"),
    "an object in the vector": (line(vector='[{"a": 1}, 1]'), 'component 1 is {"a": 1}'),
    "truths in the vector": (line(vector="[true, false]"), "component 1 is true"),
    "a truth among numbers": (line(vector="[0.5, true]"), "component 2 is true"),
    "a number written as text": (line(vector='["0.5", 1]'), 'component 1 is "0.5"'),
    "null in the vector": (line(vector="[null, 1]"), "component 1 is null"),
    "NaN in the vector": (line(vector="[NaN, 1]"), "NaN or infinity"),
    "a number beyond any float": (line(vector="[1e999, 1]"), "NaN or infinity"),
    "a whole number beyond any float": (line(vector=f"[1{'0' * 400}, 1]"), "beyond any float"),
    "an object for a vector": (line(vector='{"0": 1}'), '"vector" is no list of numbers'),
    "a truth as grade": (line(relevant='{"b": true}'), "True is no grade"),
    "null as grade": (line(relevant='{"b": null}'), "None is no grade"),
    "infinity as grade": (line(relevant='{"b": Infinity}'), "inf is no grade"),
    "a grade beyond any float": (line(relevant='{"b": 1e999}'), "inf is no grade"),
    "a truth as row id": (line(relevant="[true]"), "True is no row id"),
    "null as row id": (line(relevant="[null]"), "None is no row id"),
    "a list as row id": (line(relevant='[["b"]]'), "is no row id"),
    "half of a character as row id": (line(relevant=r'["\ud800"]'), "half of a surrogate pair"),
    "half of a character as query id": (line().replace("q2", r"\udfff"), "half of a surrogate pair"),
    "a row named twice": (line(relevant='["b", "b"]'), "'b' twice"),
    "a row named as text and number": (line(relevant='["7", 7]'), "'7' twice"),
    "a grade given twice": (line(relevant='{"b": 1, "b": 2}'), "'b' twice"),
    "a member given twice": (line(more=', "vector": [1, 0]'), "'vector' twice"),
    "a truth as query id": (line(True), '"query_id" is true; expected text or a whole number'),
    "null as query id": (line(None), '"query_id" is null; expected text or a whole number'),
    "a list as query id": (line(["q"]), '"query_id" is ["q"]; expected text or a whole number'),
    "number as relevant": (line(relevant="7"), '"relevant" is 7; expected'),
    "no relevant row": (line(relevant="[]"), "has no relevant row"),
    "other names": ('{"id": 1, "embedding": [0, 1], "ids": ["b"]}', 'this one: {"id": 1, "embedding": [0, 1]'),
    "all three members missing": ("{}", '"query_id" and "vector" and "relevant" are missing'),
    "Python for JSON": (str(json.loads(line())), "is not JSON"),
    "a comma too many": (line(more=","), "is not JSON"),
    "half a line": (line()[:30], "is not JSON"),
    "two objects on a line": (line() + line("q3"), "is not JSON"),
    "a scalar": ("7", "is not a JSON object"),
    "a list behind an object": ("[7]", "is not a JSON object"),
    "Latin-1": (line("é").encode("latin-1").replace(b"\\u00e9", b"\xe9"), "is not UTF-8"),
    "half of a character in UTF-8": (line().encode().replace(b"q2", b"\xed\xa0\x80"), "is not UTF-8"),
    "zero bytes": (line().encode().replace(b"q2", b"q\0"), "zero bytes"),
    "the id of a line above": (line("q1"), "query id 'q1' is given twice, also on"),
    "another width": (line(vector="[1, 2, 3]"), "3 components, those above it 2"),
    "a zero vector": (line(vector="[0, -0.0]"), "the vector is zero"),
}


@pytest.mark.parametrize("case", SECOND)
def test_a_line_that_cannot_be_read_is_refused_by_file_and_line(case, tmp_path):
    content, words = SECOND[case]
    path = tmp_path / "j"
    path.write_bytes(f"{GOOD}\n".encode() + (content if isinstance(content, bytes) else content.encode()) + b"\n")
    with pytest.raises(BadJudgements) as refusal:
        Judgements.load(path)
    assert f"{path} line 2" in str(refusal.value)
    assert words in str(refusal.value)
    assert len(str(refusal.value)) < 1000


WHOLE = {
    "nothing": (b"", "is empty: there are no judgements"),
    "blanks": (b" \n\r\n", "is empty: there are no judgements"),
    "an empty array": (b"[]", "there are no judgements"),
    "UTF-16": ("\ufeff".encode("utf-16-le") + GOOD.encode("utf-16-le"), "line 1 is UTF-16 text"),
    "UTF-16, the other way round": (b"\xfe\xff" + GOOD.encode("utf-16-be"), "line 1 is UTF-16 text"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), "line 1 is not UTF-8 text: it holds zero bytes"),
    "UTF-32": (GOOD.encode("utf-32"), "line 1 is UTF-32 text"),
    "gzip cut off": (gzip.compress(BOTH)[:-12], "cannot be read to its end"),
    "gzip damaged": (gzip.compress(BOTH)[:30] + b"xxxx" + gzip.compress(BOTH)[34:], "cannot be read to its end"),
    "zstd cut off": (zstd.compress(BOTH)[:-4], "cannot be read to its end"),
    "an archive": (b"PK\x03\x04" + bytes(40), "line 1 is not UTF-8 text"),
    "an array that does not end": (ARRAY[:-1], "item 2 is followed by"),
    "an array without a comma": (f"[{GOOD} {line()}]".encode(), "item 1 is followed by"),
    "an array with more behind": (ARRAY + b"{}", "goes on behind its JSON array"),
    "an array of numbers": (b"[1, 2]", "item 1 is not a JSON object"),
    "an array with a bad item": (f"[{GOOD}, {{]".encode(), "item 2 is not JSON"),
    "an array with 5,000 digits": (f"[{GOOD}, {LONG}]".encode(), "item 2 holds a whole number of thousands"),
    "nesting": (DEEP.encode(), "item 1 is nested too deeply"),
    "only queries judged not relevant": (line(relevant='{"b": 0}').encode(), "none of the 1 queries has a relevant"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_file_that_cannot_be_read_is_refused_in_words(case, tmp_path):
    content, words = WHOLE[case]
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(BadJudgements) as refusal:
        Judgements.load(tmp_path / "j")
    assert words in str(refusal.value)


def beir(folder, vectors=None, queries='{"_id": 1}\n{"_id": "2"}\n', qrels="1\ta\t1\n2\tb\t1\n"):
    (folder / "qrels").mkdir()
    (folder / "queries.jsonl").write_text(queries)
    (folder / "qrels" / "test.tsv").write_text(qrels)
    np.save(folder / "queries.npy", np.eye(2, dtype="f4") if vectors is None else vectors)
    return folder


ARRAYS = {
    "float16": np.eye(2, dtype="f2"),
    "float64": np.eye(2),
    "big-endian": np.eye(2, dtype=">f4"),
    "whole numbers": np.eye(2, dtype="i1"),
    "columns first": np.asfortranarray(np.eye(2, dtype="f4")),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_vectors_of_any_kind_of_number_are_read(case, tmp_path):
    judgements = Judgements.load(beir(tmp_path, ARRAYS[case]))
    assert judgements.vectors.tolist() == [[1, 0], [0, 1]]
    assert relevant_of(judgements) == {"1": {"a": 1}, "2": {"b": 1}}


OTHERS = {
    "truths": np.eye(2, dtype=bool),
    "complex numbers": np.eye(2, dtype=complex),
    "texts": np.array([["1", "0"], ["0", "1"]]),
    "bytes": np.array([[b"1", b"0"], [b"0", b"1"]]),
    "dates": np.zeros((2, 2), "M8[D]"),
    "records": np.zeros((2, 2), [("x", "f4")]),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_no_number_is_no_vector(case, tmp_path):
    with pytest.raises(BadJudgements, match=r"queries\.npy is no \.npy file of numbers"):
        Judgements.load(beir(tmp_path, OTHERS[case]))
    with pytest.raises(BadJudgements, match="no array of numbers"):
        Judgements.from_arrays(OTHERS[case], [["a"], ["b"]])


def header(text):
    held = text.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(held) + 1) + held + b"\n"


PROMISES = {
    "10^12 rows": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 2)}"),
    "10^30 rows": header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10**30, 2)}".replace("10**30", "1" + "0" * 30)
    ),
    "fewer than no rows": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 2)}"),
    "no shape": header("{'descr': '<f4'}"),
    "brackets": header("(" * 5000),
    "Python objects": header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}") + bytes(32),
    "another type": header("{'descr': 'nonsense', 'fortran_order': False, 'shape': (2, 2)}"),
    "nothing behind the mark": b"\x93NUMPY",
    "nothing": b"",
}


@pytest.mark.parametrize("case", PROMISES)
def test_a_header_that_promises_what_is_not_there_is_refused_in_words(case, tmp_path):
    folder = beir(tmp_path)
    (folder / "queries.npy").write_bytes(PROMISES[case])
    with pytest.raises(BadJudgements, match=r"queries\.npy (is no \.npy file of numbers|has shape)"):
        Judgements.load(folder)
    with pytest.raises((Unreadable, OSError)):
        mapped_array(folder / "queries.npy")


FIRST_LINES = {
    "a header": ("query-id\tcorpus-id\tscore\n1\ta\t1\n", {"1": {"a": 1}}),
    "another header": ("qid\tdocid\trel\n1\ta\t1\n", {"1": {"a": 1}}),
    "no header": ("1\ta\t1\n2\tb\t1e0\n", {"1": {"a": 1}, "2": {"b": 1}}),
    "a query judged not relevant": ("1\ta\t1\n2\tb\t0\n", {"1": {"a": 1}}),
    "a grade that cannot be read": ("1\ta\tx\n2\tb\t1\n", "line 1: expected"),
    "a comma in the grade": ("1\ta\t1,0\n", "line 1: expected"),
    "a line in the grade": ("1\ta\t1_0\n", "line 1: expected"),
    "TREC": ("1 0 a 1\n2 0 b 1\n", "line 1: expected query-id, corpus-id and score, separated by tabs (this looks"),
    "a header nobody knows": ("Anfrage\tTreffer\tNote\n1\ta\t1\n", "line 1: expected"),
    "a grade beyond any float": ("1\ta\t1e999\n", "line 1: expected"),
    "a grade beyond float32": ("1\ta\t1e99\n", "line 1: 1e+99 is no grade"),
    "UTF-16": ("1\0\t\0a\0\t\0001\0\n\0", "zero bytes"),
}


@pytest.mark.parametrize("case", FIRST_LINES)
def test_no_line_of_qrels_is_dropped_without_a_word(case, tmp_path):
    qrels, expected = FIRST_LINES[case]
    folder = beir(tmp_path, qrels=qrels)
    if isinstance(expected, dict):
        assert relevant_of(Judgements.load(folder)) == expected
        return
    with pytest.raises(BadJudgements) as refusal:
        Judgements.load(folder)
    assert f"{folder / 'qrels' / 'test.tsv'} line 1" in str(refusal.value)
    assert expected in str(refusal.value)


def test_queries_judged_not_relevant_are_counted_in_every_format(tmp_path):
    folder = beir(tmp_path, qrels="1\ta\t1\n2\tb\t0\n2\tc\t-1\n")
    path = tmp_path / "j"
    path.write_text(GOOD + "\n" + line(relevant='{"b": 0}'))
    arrays = Judgements.from_arrays(np.eye(2), [["a"], {"b": 0}], ["q1", "q2"])
    assert [Judgements.load(folder).unanswered, Judgements.load(path).unanswered, arrays.unanswered] == [
        ("2",),
        ("q2",),
        ("q2",),
    ]


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_a_beir_folder_may_be_packed(pack, tmp_path):
    folder = beir(tmp_path)
    ending = ".gz" if pack is gzip.compress else ".zst"
    for name in ("queries.jsonl", "qrels/test.tsv"):
        (folder / (name + ending)).write_bytes(pack((folder / name).read_bytes()))
        (folder / name).unlink()
    assert relevant_of(Judgements.load(folder, ["test"])) == {"1": {"a": 1}, "2": {"b": 1}}


def test_a_named_pipe_is_read_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[gzip.compress(BOTH)])
    writer.start()
    assert relevant_of(Judgements.load(tmp_path / "pipe")) == TWO
    writer.join()


def test_standard_input_is_read(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(BOTH))))
    assert relevant_of(Judgements.load("-")) == TWO
    with pytest.raises(BadJudgements, match="standard input is empty: there are no judgements in it"):
        Judgements.load("-")


def test_what_never_ends_or_is_no_file_is_refused_by_name(tmp_path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        for path in ("/dev/zero", str(tmp_path / "socket")):
            with pytest.raises(BadJudgements, match=f"{path} is no regular file and no pipe"):
                Judgements.load(path)


def test_zstd_that_cannot_be_read_names_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "j.zst").write_bytes(zstd.compress(BOTH))
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.delattr(f"{zstd.__name__.partition('.')[0]}.zstd")
    with pytest.raises(BadJudgements, match=r"pip install 'nudge-vdb\[zstd\]'"):
        Judgements.load(tmp_path / "j.zst")


def written(folder, name, *lines):
    (folder / name).write_text("\n".join(lines))
    return folder / name


def test_several_files_are_joined_and_equal_queries_made_one(tmp_path):
    first = written(tmp_path, "first", GOOD, line("q2"))
    second = written(tmp_path, "second", line("q1", "[1, 0.001]", '["c", "a"]'), line("q3"))
    judgements = Judgements.load([first, second])
    assert relevant_of(judgements) == {"q1": {"a": 1, "c": 1}, "q2": {"b": 2}, "q3": {"b": 2}}
    assert judgements.vectors.tolist() == [[1, 0], [0, 1], [0, 1]]


CLASHES = {
    "another vector": (line("q1", "[0, 1]"), "join", "with different vectors"),
    "another length": (line("q1", "[2, 0]"), "join", "with different vectors"),
    "another grade": (line("q1", "[1, 0]", '{"a": 3}'), "join", "row 'a' has grade 1 on"),
    "the option says so": (line("q1", "[1, 0]", '["c"]'), "refuse", "leave one out, or say --equal-ids join"),
    "another width": (line("q3", "[1, 0, 0]"), "join", "the vector has 3 components"),
}


@pytest.mark.parametrize("case", CLASHES)
def test_files_that_contradict_each_other_are_refused_with_both_lines(case, tmp_path):
    other, equal_ids, words = CLASHES[case]
    files = [written(tmp_path, "first", GOOD), written(tmp_path, "second", other)]
    with pytest.raises(BadJudgements) as refusal:
        Judgements.load(files, equal_ids=equal_ids)
    assert words in str(refusal.value)
    assert all(f"{file} line 1" in str(refusal.value) for file in files)


def test_an_option_nobody_knows_is_refused(tmp_path):
    with pytest.raises(BadOption, match="equal_ids 'either': expected join or refuse"):
        load([written(tmp_path, "j", GOOD)], (), "either")


@pytest.mark.parametrize("given", [LONG, DEEP, f'{{"a": {LONG}}}', b"\xff\xfe\0", b"\xff", '{"a": 1, "a": 2}', "{"])
def test_whatever_is_no_json_is_one_error_with_words(given):
    with pytest.raises(Unreadable):
        parsed(given, distinct=True)


def test_what_a_message_repeats_is_short_and_never_fails():
    ring = []
    ring.append(ring)
    assert all(len(shown(value)) <= 100 for value in (int("9" * 4000) * 10**2000, "x" * 10**6, ring, [0] * 10**5))


def test_a_number_is_decimal_and_finite():
    texts = ["1", " -2.5 ", "1e3", ".5", "1_0", "٣", "nan", "inf", "1e999", "", "0x1"]
    assert [number_in(text) for text in texts] == [1, -2.5, 1000, 0.5, *[None] * 7]


ODD = [
    ([[1, 0]], b"a", None),
    ([[1, 0]], [b"a"], None),
    ([[1, 0]], [np.array(5)], None),
    ([[1, 0]], [["\ud800"]], None),
    ([[1, 0]], [[10**6000]], None),
    ([[1, 0]], [{"a": 10**6000}], None),
    ([[1, 0]], [{"a": True}], None),
    ([[1, 0]], [["a"]], [10**6000]),
    ([[1, 0]], [["a"]], [None]),
    ([[1, 0]], [["a"]], [1.5]),
    ([[1, 0]], [["a"]], [True]),
    ([[True, False]], [["a"]], None),
    ([["1", "0"]], [["a"]], None),
    ([[1, True, 10**400]], [["a"]], None),
    ([[10**6000, 1]], [["a"]], None),
]


@pytest.mark.parametrize("place", range(len(ODD)))
def test_odd_arrays_are_refused_in_words(place):
    with pytest.raises(NudgeError):
        Judgements.from_arrays(*ODD[place])
