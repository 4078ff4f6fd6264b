"""`make doctor` says in words what is wrong, with any Python and before anything is installed."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [
    "requirements.txt",
    "requirements-gpu.txt",
    "helpers/data.py",
    "tools/install.py",
    "tools/doctor.py",
]


@pytest.fixture
def clone(tmp_path):
    """What the doctor reads, as in a fresh clone, in a path with a space."""
    for name in FILES:
        (tmp_path / "a clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "a clone" / name)
    return tmp_path / "a clone"


def doctor(folder, *flags, **environment):
    """(exit status, output) of the doctor in a folder."""
    keep = {name: value for name, value in os.environ.items() if name != "TFDS_DATA_DIR"}
    call = [sys.executable, *flags, str(folder / "tools" / "doctor.py")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=30, env={**keep, **environment})
    assert not done.stderr
    return done.returncode, done.stdout


def bare(folder, **environment):
    """The doctor under a Python without any package, as on a fresh machine."""
    return doctor(folder, "-S", "-I", **environment)


def test_fresh_clone_is_told_how_to_install(clone):
    status, said = bare(clone)
    assert status == 0
    assert "tensorflow missing" in said and ".venv      not there" in said
    assert "The course is not installed yet" in said


def test_interrupted_installation_is_named(clone):
    (clone / ".venv").mkdir()
    _, said = bare(clone)
    assert ".venv      not ready" in said and "not complete" in said and "make env" in said


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_stops_the_course(clone):
    clone.chmod(0o500)
    status, said = bare(clone)
    clone.chmod(0o700)
    assert status == 1 and "(stops the course) The course cannot write" in said


def test_data_folder_that_does_not_exist(clone):
    status, said = bare(clone, TFDS_DATA_DIR="/no/such/folder")
    assert status == 0 and "TFDS_DATA_DIR names a folder that does not exist: /no/such/folder" in said


def test_incomplete_data_is_named(clone):
    (clone / "data" / "downloads" / "mnist" / "3.0.1").mkdir(parents=True)
    _, said = bare(clone)
    assert "is not complete. Delete this folder" in said


def test_prepared_data_is_found(clone, tmp_path):
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").touch()
    _, said = bare(clone, TFDS_DATA_DIR=str(tmp_path))
    assert "full: MNIST is prepared" in said


@pytest.mark.skipif(os.name == "nt", reason="the driver is a shell script here")
@pytest.mark.parametrize("script, says", [("echo 'GPU X, 80 GB, 1.0'", "GPU X, 80 GB"), ("exit 9", "does not answer")])
def test_graphics_card(clone, tmp_path, script, says):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    _, said = bare(clone, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert says in said


def test_here_the_course_can_run_and_the_answer_is_quick():
    begun = time.monotonic()
    status, said = doctor(ROOT)
    assert time.monotonic() - begun < 20  # 1 to 2 s alone; beside a notebook on a busy machine several times that
    assert status == 0
    for name in ("system", "Python", "packages", "GPU", "cores", "memory", "disk", "build/", "network", "data"):
        assert f"\n{name} " in f"\n{said}"
    assert "tensorflow missing" not in said
