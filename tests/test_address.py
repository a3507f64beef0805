"""Addresses: what is read out of them, and which are refused."""

import pytest

from nudge_vdb.address import Address, canonical_host, parse_address
from nudge_vdb.errors import BadAddress

EXAMPLES = {
    "qdrant://h:6333/c?vector=t": Address("qdrant", "", "h", 6333, "", "c", {"vector": "t"}),
    "qdrant+https://db.example/c": Address("qdrant", "https", "db.example", None, "", "c", {}),
    "qdrant+local:///a/b/c": Address("qdrant", "local", "", None, "/a/b", "c", {}),
    "qdrant+local://./x/c": Address("qdrant", "local", ".", None, "/x", "c", {}),
    "qdrant+local://../x/c": Address("qdrant", "local", "..", None, "/x", "c", {}),
    "milvus://h:19530/db/c": Address("milvus", "", "h", 19530, "/db", "c", {}),
    "milvus+lite:///p/f.db/c": Address("milvus", "lite", "", None, "/p/f.db", "c", {}),
    "milvus://h/c?partition=p&vector=v": Address("milvus", "", "h", None, "", "c", {"partition": "p", "vector": "v"}),
    "qdrant://[::1]:6333/c": Address("qdrant", "", "[::1]", 6333, "", "c", {}),
    "QDRANT://Host/C": Address("qdrant", "", "Host", None, "", "C", {}),
    "qdrant+local:///my%20data/caf%C3%A9": Address("qdrant", "local", "", None, "/my data", "café", {}),
    "qdrant+local://my%20data/c": Address("qdrant", "local", "my data", None, "", "c", {}),
    "qdrant://h/c?vector=a%26b%3Dc": Address("qdrant", "", "h", None, "", "c", {"vector": "a&b=c"}),
    "qdrant://h/c?vector=": Address("qdrant", "", "h", None, "", "c", {"vector": ""}),
    "qdrant://h/c%23d%3Fe": Address("qdrant", "", "h", None, "", "c#d?e", {}),
    "qdrant://h/a%2Fb": Address("qdrant", "", "h", None, "", "a/b", {}),
}

REFUSED = {
    "articles": "a backend in front, such as qdrant://",
    "//h:6333/articles": "a backend in front, such as qdrant://",
    "localhost:6333/articles": "a backend in front, such as qdrant://",
    "": "a backend in front, such as qdrant://",
    "qdrant://h:6333": "the name of a collection at its end",
    "qdrant://h:6333/": "the name of a collection at its end",
    "qdrant+local:///a/b/": "the name of a collection at its end",
    "qdrant://h:99999/c": "is not an address",
    "qdrant://h:http/c": "is not an address",
    "qdrant://[::1/c": "is not an address",
    "qdrant://h/c?vector=a&vector=b": "gives an option twice",
    "qdrant://h/c#d": "%23",
}

WITH_SECRETS = [
    "qdrant://user:hunter2@h:6333/c",
    "qdrant://:hunter2@h/c",
    "qdrant://user:hunter2@h:99999/c",
    "qdrant://user:hunter2@h:http/c",
    "qdrant://user:hunter2@[::1/c",
    "qdrant://user:hunter2@h",
    "qdrant://user:hunter2@h/c?a=1&a=2",
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_address_is_read_as_its_author_meant_it(text):
    assert parse_address(text) == EXAMPLES[text]


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("qdrant+local:///a/b/c", "/a/b"),
        ("qdrant+local://./x/c", "./x"),
        ("qdrant+local://x/y/c", "x/y"),
        ("milvus+lite:///p/f.db/c", "/p/f.db"),
        ("milvus+lite://f%20g.db/c", "f g.db"),
    ],
)
def test_host_and_path_of_an_embedded_engine_are_one_file_name(text, file):
    assert parse_address(text).file == file


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_address_is_refused_and_told_why(text):
    with pytest.raises(BadAddress) as refusal:
        parse_address(text)
    assert REFUSED[text] in str(refusal.value)


@pytest.mark.parametrize("text", WITH_SECRETS)
def test_a_password_in_an_address_is_refused_and_never_repeated(text):
    with pytest.raises(BadAddress, match="may not hold a password") as refusal:
        parse_address(text)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "user:hunter2@h:6333/c",
        "//user:hunter2@h/c",
        "qdrant:user:hunter2@h/c",
        "qdrant:/user:hunter2@h/c",
        "qdrant://user:hunt/hunter2@h/c",
        "qdrant://user:hunt#hunter2@h/c",
        "qdrant://user:6333/hunter2@h/c#d",
    ],
)
def test_what_is_no_address_is_not_repeated_where_it_may_hold_a_password(text):
    with pytest.raises(BadAddress) as refusal:
        parse_address(text)
    assert "hunter2" not in str(refusal.value)


def test_an_unknown_option_lists_those_there_are():
    address = parse_address("qdrant://h/c?vector=t&vectr=u&a=b")
    with pytest.raises(BadAddress, match="qdrant addresses have no option a, vectr; known: vector, timeout"):
        address.allow("vector", "timeout")
    address.allow("vector", "vectr", "a")


def test_an_option_that_was_not_given_is_none():
    address = parse_address("qdrant://h/c?vector=t")
    assert (address.option("vector"), address.option("timeout")) == ("t", None)


@pytest.mark.parametrize(("query", "seconds"), [("", 30.0), ("?timeout=5", 5.0), ("?timeout=0.25", 0.25)])
def test_a_timeout_is_a_number_of_seconds(query, seconds):
    assert parse_address(f"qdrant://h/c{query}").seconds("timeout", 30.0) == seconds


@pytest.mark.parametrize("value", ["soon", "", "0", "-1", "nan", "inf", "5s"])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(value):
    with pytest.raises(BadAddress, match=f"option timeout={value}: give a number of seconds above 0"):
        parse_address(f"qdrant://h/c?timeout={value}").seconds("timeout", 30.0)


def test_a_user_is_no_secret_and_stands_in_the_address():
    address = parse_address("pgvector://me%40work@db.example:5432/base/articles?vector=v")
    expected = Address("pgvector", "", "db.example", 5432, "/base", "articles", {"vector": "v"}, "me@work")
    assert address == expected
    address.allow("vector", user=True)
    assert parse_address("pgvector://me@[::1]:5432/c").host == "[::1]"
    assert parse_address("pgvector://h/c").user == ""


def test_a_user_is_refused_where_the_backend_knows_none_and_is_not_repeated_as_it_may_be_a_key():
    with pytest.raises(BadAddress, match="qdrant addresses have no user before the host") as refusal:
        parse_address("qdrant://hunter2@h/c").allow("vector")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["pgvector://me:hunter2@h/c", "pgvector://me%3Ahunter2@h/c", "pgvector://:hunter2@h/c"]
)
def test_what_is_said_of_a_password_names_no_engine(text):
    with pytest.raises(BadAddress, match="may not hold a password") as refusal:
        parse_address(text)
    assert not [word for word in ("hunter2", "qdrant", "milvus") if word in str(refusal.value).lower()]


HOSTS = {
    "localhost": [
        "LOCALHOST",
        "localhost.",
        "127.0.0.1",
        "127.1",
        "127.0.0.2",
        "[::1]",
        "0:0:0:0:0:0:0:1",
        "::ffff:127.0.0.1",
    ],
    "db.example": ["DB.Example", "db.example."],
    "2001:db8::1": ["[2001:DB8::1]", "2001:0db8:0:0:0:0:0:1"],
    "10.0.0.1": ["10.0.0.1", "::ffff:10.0.0.1", "10.1", "0x0a.0.0.1"],
    "xn--mller-kva.example": ["müller.example", "MÜLLER.example."],
    "127.0.0.1.example": ["127.0.0.1.example"],
    "127.example": ["127.example"],
}


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_has_one_name_however_it_is_spelled_and_no_other_host_has_it(name):
    assert {canonical_host(spelling) for spelling in HOSTS[name]} == {name}
