"""Files that appear whole, and files of others."""

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from pellucid.errors import UsageError
from pellucid.files import appearing_file, read_json, regular_file, write_text
from pellucid.text import drawable, printable


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_the_umasks(tmp_path, umask):
    before = os.umask(umask)
    try:
        with appearing_file(tmp_path / "weights.safetensors") as scratch:
            save_file({"a": np.zeros(3)}, scratch)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == 0o666 & ~umask


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.json", "old")
    with pytest.raises(KeyboardInterrupt), appearing_file(tmp_path / "a.json") as scratch:
        scratch.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    program = (
        "import os, signal, sys; from pellucid.files import appearing_file\n"
        "with appearing_file(sys.argv[1]) as f: f.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(target)]).returncode == -9
    assert target.read_text() == "old"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 200_000, b'"a"'])
def test_json_of_a_stranger(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"run\.json: damaged"):
        read_json(tmp_path / "run.json")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("pipe", "not a file"),
        (".", "not a file"),
        ("none", "no such file"),
        ("x" * 300, "cannot|no"),
    ):
        with pytest.raises(UsageError, match=message):
            regular_file(tmp_path / name)
        with pytest.raises(UsageError, match=message):
            read_json(tmp_path / name)


def test_large_json_is_not_read(tmp_path):
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(UsageError, match="too many"):
        read_json(tmp_path / "run.json")


def test_json_is_read(tmp_path):
    write_text(tmp_path / "a.json", json.dumps({"ä": 1}, ensure_ascii=False))
    assert read_json(tmp_path / "a.json") == {"ä": 1}


def test_text_shows_what_a_terminal_would_obey():
    assert printable("a\x1b]0;x\x07\nb\u202e\ud800") == r"a\x1b]0;x\x07\nb\u202e\ud800"
    assert printable("été 👩\u200d🚀 猫") == "été 👩\u200d🚀 猫"
    assert drawable("a$b$\t") == r"a\$b\$\t"
