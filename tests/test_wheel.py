"""The wheel: what a user gets, and nothing that would get in another package's way."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ["nudge_vdb", "nudge_vdb_milvus", "nudge_vdb_qdrant"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names of the files in the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        yield {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_installs_our_packages_and_no_other_name(wheel):
    tops = {name.split("/")[0] for name in wheel}
    (info,) = (name for name in tops if name.endswith(".dist-info"))
    assert tops - {info} == set(PACKAGES)
    assert info.startswith("nudge_vdb-")


def test_adapters_is_a_folder_and_no_package(wheel):
    assert not (ROOT / "adapters" / "__init__.py").exists()
    assert not [name for name in wheel if "adapters" in Path(name).parts]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package, wheel):
    assert f"{package}/py.typed" in wheel


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_of_a_package_is_in_the_wheel(package, wheel):
    source = next(path for path in (ROOT / package, ROOT / "adapters" / package) if path.is_dir())
    modules = {f"{package}/{path.relative_to(source)}" for path in source.rglob("*.py")}
    assert modules <= wheel.keys()
    assert f"{package}/__init__.py" in modules


@pytest.mark.parametrize(
    "name", ["nudge_vdb/testing/kit.py", "nudge_vdb/testing/memory.py", "nudge_vdb/testing/faults.py"]
)
def test_the_kit_is_there_for_authors_of_backends(name, wheel):
    assert name in wheel


def test_the_demo_has_its_vectors(wheel):
    assert wheel["nudge_vdb/demo/cranfield.npz"] == (ROOT / "nudge_vdb" / "demo" / "cranfield.npz").read_bytes()


def test_no_tests_and_no_leftovers_are_in_the_wheel(wheel):
    kinds = {Path(name).suffix for name in wheel if ".dist-info/" not in name}
    assert kinds == {".py", ".typed", ".npz"}
    assert not [name for name in wheel if Path(name).name.startswith("test_")]


def test_the_wheel_registers_command_backends_and_fixtures(wheel):
    (points,) = (text.decode() for name, text in wheel.items() if name.endswith(".dist-info/entry_points.txt"))
    for line in (
        "nudge-vdb = nudge_vdb.cli:main",
        "qdrant = nudge_vdb_qdrant:open_collection",
        "milvus = nudge_vdb_milvus:open_collection",
        "qdrant = nudge_vdb_qdrant.fixture:open_fixture",
        "milvus = nudge_vdb_milvus.fixture:open_fixture",
    ):
        assert line in points.splitlines()


def test_the_licence_comes_with_the_wheel(wheel):
    assert [name for name in wheel if name.endswith(".dist-info/licenses/LICENSE")]
