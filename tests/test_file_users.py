"""Processes that have a file open."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time

import pytest

from jina_rag import _file_users
from jina_rag._file_users import describe_users, has_live_user, record_user

HOLD = "import sys, time; stream = open(sys.argv[1]); print(flush=True); time.sleep(60)"


@pytest.fixture
def holder(tmp_path):
    """A process that has the file ``lock`` open."""
    (tmp_path / "lock").touch()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the open files of processes")
def test_process_with_an_open_file_is_described_until_it_is_killed(tmp_path, holder):
    lock = tmp_path / "lock"
    assert f"process {holder.pid} (" in describe_users(lock)
    assert has_live_user(lock)
    holder.kill()
    deadline = time.monotonic() + 20
    while has_live_user(lock):  # the process is not waited for, so it becomes a zombie
        assert time.monotonic() < deadline
    assert _file_users._is_ending(holder.pid)
    assert not _file_users._is_ending(os.getpid())


def test_recorded_process_is_live_until_it_ends(tmp_path):
    lock, record = tmp_path / "lock", tmp_path / "process.json"
    assert not has_live_user(lock, record)
    record_user(record)
    assert has_live_user(lock, record)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    record.write_text(json.dumps({"pid": process.pid, "host": platform.node(), "command": "python"}))
    assert not has_live_user(lock, record)
    assert not describe_users(lock, record)


def test_recorded_process_of_another_host_is_live(tmp_path):
    record = tmp_path / "process.json"
    record.write_text(json.dumps({"pid": 1, "host": "elsewhere", "command": "python app.py"}))
    assert has_live_user(tmp_path / "lock", record)
    assert describe_users(tmp_path / "lock", record) == "process 1 (python app.py) on elsewhere"
