"""Paths: what is none on this machine is refused before anything is read; what may vanish is said."""

import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb import cli
from nudge_vdb.errors import BadOption
from nudge_vdb.judgements import Judgements
from nudge_vdb.paths import local_path, require_posix, why_ephemeral
from nudge_vdb.testing import Faulty

ELSEWHERE = [
    "s3://bucket/nudge",
    "gs://bucket/x",
    "az://x/y",
    "https://host/j.jsonl",
    "hdfs://n/x",
    "S3://b",
    "file:///x",
]
MOUNTS = """\
21 1 0:19 / / rw,relatime - overlay overlay rw,lowerdir=/a
22 21 0:20 / /proc rw - proc proc rw
23 21 8:1 / /data rw,relatime shared:1 - ext4 /dev/sda1 rw
24 21 0:21 / /run rw,nosuid - tmpfs tmpfs rw
25 23 0:22 / /data/in\\040memory rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize("text", ELSEWHERE)
def test_an_address_is_no_folder(text):
    with pytest.raises(BadOption, match="not supported, only paths on this machine"):
        local_path(text, "--state")
    with pytest.raises(BadOption, match="not supported"):
        local_path(Path(text), "--state")  # which makes one slash of two


@pytest.mark.parametrize("text", ["C:/nudge", "./s3:/x", "a:b/c", "relative/x", "/abs/x"])
def test_a_path_that_only_looks_like_an_address_is_a_path(text):
    assert local_path(text, "--state") == Path(os.path.abspath(text))  # noqa: PTH100


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("~nobody-of-this-name/x", "home"),
        ("x" * 300, "name too long"),
        ("a\0b", "zero byte"),
    ],
)
def test_a_path_that_cannot_be_one_is_refused_in_words(text, word):
    with pytest.raises(BadOption, match=f"(?i)--state.*{word}"):
        local_path(text, "--state")


def test_a_path_below_a_working_folder_that_is_gone_is_refused_in_words(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(BadOption, match="working folder is gone"):
        local_path("state", "--state")


def test_a_user_without_a_home_is_told_to_name_a_state_folder(world, monkeypatch):
    def no_home(*_):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("NUDGE_VDB_STATE", raising=False)
    monkeypatch.setattr("platformdirs.user_state_dir", no_home)
    with pytest.raises(BadOption, match=r"no home folder.*--state"):
        nudge_vdb.status(world.collection)


@pytest.mark.parametrize("verb", ["plan", "status", "history", "rollback", "adopt", "verify", "export_map"])
def test_no_verb_takes_an_address_for_its_state_or_its_file(world, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    calls = {
        "plan": lambda counted, state: nudge_vdb.plan(counted, world.train, state=state),
        "rollback": lambda counted, state: nudge_vdb.rollback(counted, to=0, state=state),
        "export_map": lambda counted, path: nudge_vdb.export_map(counted, path, version=1, state=tmp_path),
    }
    act = calls.get(verb, lambda counted, state: getattr(nudge_vdb, verb)(counted, state=state))
    counted = Faulty(world.collection)
    for place in ("s3://bucket/nudge", Path("s3://bucket/nudge")):
        with pytest.raises(BadOption, match="not supported"):
            act(counted, place)
    assert not counted.calls
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("NUDGE_VDB_STATE", "s3://bucket/nudge")
    with pytest.raises(BadOption, match="not supported"):
        nudge_vdb.status(counted)


def test_judgements_at_an_address_are_refused_before_anything_is_read():
    with pytest.raises(BadOption, match=r"judgements s3:.*not supported"):
        Judgements.load("s3://bucket/judgements.jsonl")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nudge-vdb", *arguments, "--json"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("place", ["", "s3://bucket/nudge", "~nobody-of-this-name/x", "x" * 300])
def test_the_command_line_refuses_a_state_that_is_no_place_and_makes_none(run, tmp_path, place):
    status, told = run("status", "qdrant+local:///nowhere/x", "--state", place)
    assert (status, told["error"]) == (2, "BadOption")
    assert "--state" in told["message"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/state", "overlay"),
        ("/run/state", "tmpfs"),
        ("/data/in memory/x", "tmpfs"),
        ("/data/state", None),
        ("/data", None),
    ],
)
def test_a_place_that_ends_with_the_machine_or_the_container_is_told_by_its_mount(folder, kind):
    why = why_ephemeral(Path(folder), MOUNTS)
    assert (kind in why) if kind else why is None


def test_a_temporary_folder_is_told_wherever_it_is_mounted(tmp_path):
    assert "temporary" in why_ephemeral(Path("/tmp/state"), "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    assert why_ephemeral(Path("/state"), "") is None
    assert why_ephemeral(Path("/state"), "no mount table\n - \n1 2 - \n") is None


def test_a_plan_an_apply_and_the_doctor_warn_of_a_state_that_may_vanish(world, tmp_path):
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    (warning,) = plan.report["state_warnings"]
    assert "may vanish" in warning
    assert str(tmp_path) in warning
    assert nudge_vdb.apply(plan).report["state_warnings"] == [warning]
    told = nudge_vdb.diagnose(world.collection, state=tmp_path)["remarks"]
    assert [each["text"] for each in told if each["topic"] == "state" and each["weight"] == "warning"] == [warning]


def modes(folder):
    return {path.relative_to(folder): path.stat().st_mode & 0o7777 for path in [folder, *folder.rglob("*")]}


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_what_a_run_keeps_can_be_read_by_nobody_else(world, tmp_path, usual_umask, monkeypatch):
    seen = {}
    monkeypatch.setattr(  # while the rows are paged out
        "nudge_vdb.run.settle",
        lambda *given, settle=nudge_vdb.run.settle: (seen.update(modes(root)), settle(*given))[1],
    )
    root = tmp_path / "made" / "state"
    state = nudge_vdb.plan(world.collection, world.train, state=root, carry="on").state
    with state.locked():
        seen |= modes(root)
    nudge_vdb.apply(nudge_vdb.prepared(world.collection, state=root), force=True)
    out = tmp_path / "map.npy"
    nudge_vdb.export_map(world.collection, out, version=1, state=root)
    seen |= modes(root)
    assert {mode for mode in seen.values() if mode & 0o077} == set()
    assert out.stat().st_mode & 0o077 == 0
    assert {"lock", "holder.json", "vectors.f32", "journal"} <= {path.name for path in seen}


def test_a_folder_that_a_group_shares_is_shared_by_it_all_the_way_down(world, tmp_path, usual_umask):
    root = tmp_path / "team"
    root.mkdir()
    root.chmod(0o2770)
    nudge_vdb.apply(nudge_vdb.plan(world.collection, world.train, state=root), force=True)
    made = modes(root)
    assert {mode & 0o077 for path, mode in made.items() if path != Path()} <= {0o070, 0o060}


def test_a_folder_that_everybody_writes_to_gives_nobody_anything(world, tmp_path, usual_umask):
    root = tmp_path / "everybody"
    root.mkdir()
    root.chmod(0o1777)
    nudge_vdb.plan(world.collection, world.train, state=root)
    assert {mode & 0o077 for path, mode in modes(root).items() if path != Path()} == {0}


@pytest.mark.parametrize("shared", [0o700, 0o2770])
def test_a_file_system_that_keeps_no_rights_keeps_a_state(shared, world, tmp_path, monkeypatch):
    """As CIFS and FAT."""
    (root := tmp_path / "mounted").mkdir()
    root.chmod(shared)

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    nudge_vdb.apply(nudge_vdb.plan(world.collection, world.train, state=root), force=True)
    assert nudge_vdb.status(world.collection, state=root)["live"] == 1


def test_a_state_folder_that_others_may_look_into_is_left_so_and_said(world, tmp_path):
    (root := tmp_path / "open").mkdir()
    root.chmod(0o755)
    told = nudge_vdb.diagnose(world.collection, state=root)["remarks"]
    assert any("every user of this machine may look into" in each["text"] for each in told)
    assert root.stat().st_mode & 0o777 == 0o755


def test_a_system_that_undo_cannot_rest_on_is_refused_before_anything_is_read():
    require_posix()
    with pytest.raises(BadOption, match="WSL 2"):
        require_posix("nt")


def test_where_the_system_cannot_set_room_aside_it_is_filled(world, tmp_path, monkeypatch):
    """As on macOS."""
    wanted = nudge_vdb.plan(world.collection, world.train, state=tmp_path / "with").version.content
    monkeypatch.delattr(os, "posix_fallocate")
    found = nudge_vdb.plan(world.collection, world.train, state=tmp_path / "without").version.content
    np.testing.assert_array_equal(found.tuned, wanted.tuned)
