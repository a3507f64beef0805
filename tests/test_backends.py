"""Finding the package that can open an address, and saying so when there is none."""

import subprocess
import sys
from textwrap import dedent

import pytest

from nudge_vdb.backends import connect, fill, installed
from nudge_vdb.contract import Metric
from nudge_vdb.errors import BackendUnavailable
from nudge_vdb.testing import example_rows

ACME = """
from nudge_vdb.contract import Metric
from nudge_vdb.testing import memory_fixture, example_rows

def open_collection(address):
    return memory_fixture(example_rows([1, 2, 3]), name=address.collection).collection

def open_fixture(address, rows, metric):
    return memory_fixture(rows, metric, address.collection)

def open_nothing(address):
    import no_such_package_either
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install packages, as pip leaves them, where only this test finds them."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def add(package, entry_points, **modules):
        folder = site / f"{package.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(dedent(entry_points))
        for name, text in modules.items():
            (site / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)

    return add


def python(code, *arguments):
    """Run *code* in a Python of its own; return what it prints."""
    command = [sys.executable, "-W", "error", "-c", dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_backend_of_any_package_is_found_by_the_scheme_of_an_address(install):
    install(
        "nudge-vdb-acme",
        """
        [nudge_vdb.backends]
        acme = acme_found:open_collection
        [nudge_vdb.fixtures]
        acme = acme_found:open_fixture
        """,
        acme_found=ACME,
    )
    assert connect("acme+https://host/articles").traits.collection == "memory:articles"
    fixture = fill("acme://host/others", example_rows([1, 2]), Metric.DOT)
    assert (fixture.collection.count(), fixture.collection.traits.metric) == (2, Metric.DOT)
    known = {entry["backend"]: entry for entry in installed()}
    assert known["acme"] == {"backend": "acme", "package": "nudge-vdb-acme", "usable": True, "reason": ""}
    assert {"acme", "milvus", "qdrant"} <= known.keys()


def test_a_scheme_that_nobody_provides_lists_those_that_are_installed():
    with pytest.raises(BackendUnavailable, match=r"provides the backend 'qdrnt'; installed: milvus, qdrant$"):
        connect("qdrnt://h/c")
    with pytest.raises(BackendUnavailable, match=r"provides the backend 'pinecone'; installed: milvus, qdrant$"):
        fill("pinecone://h/c", example_rows([1]), Metric.DOT)


def test_two_packages_that_claim_one_name_are_both_named(install):
    install("other-qdrant", "[nudge_vdb.backends]\nqdrant = other_qdrant:open_collection\n")
    with pytest.raises(BackendUnavailable) as refusal:
        connect("qdrant+local:///nowhere/c")
    expected = "nudge-vdb and other-qdrant both provide the backend 'qdrant'; uninstall one of them"
    assert str(refusal.value) == expected


def test_one_package_that_is_found_twice_is_one(install, tmp_path, monkeypatch):
    points = "[nudge_vdb.backends]\nacme = acme_twice:open_collection\n"
    install("nudge-vdb-acme", points, acme_twice=ACME)
    again = tmp_path / "again" / "nudge_vdb_acme-1.0.dist-info"
    again.mkdir(parents=True)
    (again / "METADATA").write_text("Metadata-Version: 2.1\nName: nudge-vdb-acme\nVersion: 1.0\n")
    (again / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(again.parent)
    assert connect("acme://h/c").traits.collection == "memory:c"


@pytest.mark.parametrize(("backend", "client"), [("milvus", "pymilvus"), ("qdrant", "qdrant_client")])
def test_a_client_that_is_not_installed_gives_the_command_that_installs_it(backend, client):
    said = python(
        """
        import sys
        sys.modules[sys.argv[2]] = None  # as good as not installed
        from nudge_vdb.backends import connect, installed
        from nudge_vdb.errors import BackendUnavailable
        try:
            connect(sys.argv[1] + "://localhost/c")
        except BackendUnavailable as refusal:
            print(refusal)
        known = {entry["backend"]: entry for entry in installed()}
        print(known[sys.argv[1]]["usable"], known[sys.argv[1]]["reason"])
        print(*sorted(name for name, entry in known.items() if entry["usable"]))
        """,
        backend,
        client,
    ).splitlines()
    other = {"milvus": "qdrant", "qdrant": "milvus"}[backend]
    assert said[0].startswith(f"the client of {backend} cannot be imported (")
    assert client in said[0]
    assert said[0].endswith(f"; install it with: pip install 'nudge-vdb[{backend}]'")
    assert said[1:] == [f"False {said[0]}", other]


def test_a_failure_after_the_import_is_not_taken_for_a_missing_client(install):
    install("nudge-vdb-acme", "[nudge_vdb.backends]\nacme = acme_broken:open_nothing\n", acme_broken=ACME)
    with pytest.raises(ModuleNotFoundError, match="no_such_package_either"):
        connect("acme://h/c")


FAULTS = {
    "an error at import": ("raise ValueError('no licence')", "ended in ValueError: no licence"),
    "an end at import": ("import sys; sys.exit(3)", "ended in SystemExit: 3"),
    "no such function": ("", "ended in AttributeError: module 'acme_faulty' has no attribute 'open_collection'"),
    "a mistake in the text": ("def open_collection(:", "ended in SyntaxError: "),
    "no function": ("open_collection = 7", "acme_faulty:open_collection is no function"),
    "a missing import": ("import no_such_package", "pip install 'nudge-vdb-acme'"),
}


@pytest.mark.parametrize(("text", "words"), FAULTS.values(), ids=FAULTS)
def test_a_broken_package_is_listed_with_its_fault_and_the_others_work(text, words, install, tmp_path):
    points = "[nudge_vdb.backends]\nacme = acme_faulty:open_collection\n"
    install("nudge-vdb-acme", points, acme_faulty=text)
    known = {entry["backend"]: entry for entry in installed()}
    assert not known["acme"]["usable"]
    assert words in known["acme"]["reason"]
    assert known["qdrant"]["usable"]
    assert known["milvus"]["usable"]
    with pytest.raises(BackendUnavailable) as refusal:
        connect("acme://h/c")
    assert words in str(refusal.value)
    fill(f"qdrant+local://{tmp_path}/db/c", example_rows([1, 2]), Metric.DOT).close()


OLD = """
class Old:
    contract = {number}
    {members}

def open_collection(address):
    return Old()
"""


def test_a_package_of_another_contract_is_refused_when_it_is_opened(install):
    points = "[nudge_vdb.backends]\nacme = acme_{0}:open_collection\n"
    install("nudge-vdb-acme", points.format("old"), acme_old=OLD.format(number=1, members="scan = fetch = None"))
    with pytest.raises(BackendUnavailable) as refusal:
        connect("acme://h/c")
    assert str(refusal.value) == (
        "the backend acme of nudge-vdb-acme lacks what contract 1 wants of a collection: close, count, diagnose, "
        "leave_note, locate, notes, search, text_of, traits, write; upgrade its package"
    )


def test_a_package_of_a_newer_contract_is_refused_when_it_is_opened(install):
    points = "[nudge_vdb.backends]\nacme = acme_newer:open_collection\n"
    install("nudge-vdb-acme", points, acme_newer=OLD.format(number=99, members=""))
    with pytest.raises(BackendUnavailable, match="acme of nudge-vdb-acme keeps contract 99, and this nudge-vdb knows"):
        connect("acme://h/c")


@pytest.mark.parametrize(
    "start",
    [
        "import nudge_vdb",
        "import nudge_vdb.testing, nudge_vdb.demo",
        "from nudge_vdb.cli import main; sys.argv = ['nudge-vdb', '--help']; main()",
        "from nudge_vdb.cli import main; sys.argv = ['nudge-vdb', 'plan', '--help']; main()",
    ],
)
def test_starting_loads_no_client_and_no_adapter(start):
    said = python(
        """
        import sys
        try:
            exec(sys.argv[1])
        except SystemExit as end:
            assert end.code in (0, None), end.code
        heavy = {"qdrant_client", "nudge_vdb_qdrant", "pymilvus", "milvus_lite", "nudge_vdb_milvus", "grpc", "pandas"}
        print("loaded", sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
        """,
        start,
    )
    assert said.splitlines()[-1] == "loaded []"
