"""The installation, without installing anything, and the four files that say which versions belong together."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
Version = namedtuple("Version", "major minor micro releaselevel serial")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`tools/install.py` for an empty course, where commands are noted in `install.calls` and succeed."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "tools" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / ".venv"
    for name, value in (("ROOT", tmp_path), ("VENV", venv), ("READY", venv / "ready"), ("PYTHON", venv / "python")):
        monkeypatch.setattr(module, name, str(value))
    for name in ("requirements.txt", "requirements-gpu.txt"):
        (tmp_path / name).write_text(name)
    module.calls = []

    def call(command, **_):
        module.calls.append(" ".join(command))
        if "venv" in command:
            shutil.rmtree(venv, ignore_errors=True)
            venv.mkdir()
            (venv / "python").touch()
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.setattr(module, "finish_venv", lambda: module.calls.append("finish"))
    monkeypatch.setattr(sys, "argv", ["install.py"])
    return module


def error_of(call):
    with pytest.raises(SystemExit) as stopped:
        call()
    assert str(stopped.value).startswith("error: ")
    return str(stopped.value)


# Failures


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_unsuitable_python_without_another_says_which_to_install(install, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", Version(*version, 0, "final", 0))
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    message = error_of(install.main)
    assert f"needs Python 3.11 to 3.13, and python3 here is 3.{version[1]}" in message
    assert "make PYTHON=" in message
    assert install.calls == [] and not Path(install.VENV).exists()


def test_unsuitable_python_uses_the_newest_suitable_one_that_works(install, monkeypatch):
    monkeypatch.setattr(sys, "version_info", Version(3, 14, 0, "final", 0))
    monkeypatch.setattr(install.shutil, "which", lambda name: "/bin/" + name)
    monkeypatch.setattr(subprocess, "call", lambda command, **_: int("3.13" in command[0]))  # as pyenv's shims fail
    assert install.suitable_python() == "/bin/python3.12"


def test_folder_that_cannot_be_written_says_what_to_do(install, tmp_path, monkeypatch):
    monkeypatch.setattr(install, "ROOT", str(tmp_path / "missing"))
    assert "Copy the course to a folder of your own" in error_of(install.lock_this_process)


def test_too_little_disk_stops_before_anything_is_made(install, monkeypatch):
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(install.shutil, "disk_usage", lambda path: usage(9, 8, 1))
    assert "needs 4 GB" in error_of(install.main)
    assert install.calls == []


def test_failed_download_says_to_run_make_again_and_is_not_ready(install, monkeypatch):
    succeed = subprocess.call
    monkeypatch.setattr(subprocess, "call", lambda command, **_: succeed(command) or int("pip" in command))
    assert "run make again" in error_of(install.main)
    assert not Path(install.READY).exists()
    assert "finish" not in install.calls


def test_python_without_venv_names_the_package(install, monkeypatch):
    monkeypatch.setattr(subprocess, "call", lambda command, **_: 1)
    assert "sudo apt install python3-venv" in error_of(install.main)


# What is done, and when


def test_first_use_makes_the_environment_and_the_second_does_nothing(install):
    install.main()
    assert [call.split(" -m ")[1].split()[0] for call in install.calls[:-1]] == ["venv", "pip"]
    assert "--require-hashes" in install.calls[1] and install.calls[-1] == "finish"
    assert Path(install.READY).exists()
    install.calls.clear()
    install.main()
    assert install.calls == []


def test_installation_killed_half_way_is_made_anew(install):
    install.main()
    os.remove(install.READY)
    install.calls.clear()
    install.main()
    assert "-m venv --clear" in install.calls[0]


def test_changed_lock_is_installed_into_what_is_there(install, tmp_path):
    install.main()
    (tmp_path / "requirements.txt").write_text("changed")
    install.calls.clear()
    install.main()
    assert len(install.calls) == 2 and "venv --clear" not in install.calls[0]
    install.calls.clear()
    install.main()
    assert install.calls == []


def test_gpu_is_added_once_and_kept_by_later_calls_without_it(install, monkeypatch):
    install.main()
    install.calls.clear()
    monkeypatch.setattr(sys, "argv", ["install.py", "--gpu"])
    install.main()
    assert any("requirements-gpu.txt" in call for call in install.calls)
    install.calls.clear()
    install.main()
    monkeypatch.setattr(sys, "argv", ["install.py"])
    install.main()
    assert install.calls == []


def test_environment_whose_python_is_gone_is_made_anew(install):
    install.main()
    os.remove(install.PYTHON)
    install.calls.clear()
    install.main()
    assert "-m venv --clear" in install.calls[0]


def test_course_that_was_moved_or_copied_is_finished_again(install, tmp_path, monkeypatch):
    install.main()
    monkeypatch.setattr(install, "ROOT", str(shutil.copytree(tmp_path, tmp_path / "copy")))
    install.calls.clear()
    install.main()
    assert install.calls[-1] == "finish"  # its kernels would import the helpers of the old place


# The four files


def name_of(requirement):
    return re.sub(r"[-_.]+", "-", requirement.name).lower()


def locked(file):
    """[(requirement, number of hashes)] of a lock."""
    text = (ROOT / file).read_text(encoding="utf-8")
    entries = re.findall(r"^([a-zA-Z0-9][^\\\n]*)((?:\\\n +--hash=sha256:[0-9a-f]{64} ?)*)", text, re.MULTILINE)
    return [(Requirement(pin.strip()), hashes.count("--hash")) for pin, hashes in entries]


def commented(text):
    """{name: (requirement, comment)} of the lines that name a package."""
    lines = re.findall(r'^ +(?:- |")([a-zA-Z0-9-]+[=>][^ ",]*)"?,? *(?:# *(.*))?$', text, re.MULTILINE)
    found = [(Requirement(pin), comment) for pin, comment in lines if not pin.startswith("python=3")]
    return {name_of(requirement): (requirement, comment) for requirement, comment in found}


def direct():
    return commented((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def environment(python="3.12", platform="linux"):
    names = {"linux": ("Linux", "x86_64"), "darwin": ("Darwin", "arm64"), "win32": ("Windows", "AMD64")}
    system, machine = names[platform]
    return {
        "python_version": python,
        "python_full_version": python + ".7",
        "sys_platform": platform,
        "platform_system": system,
        "platform_machine": machine,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "nt" if platform == "win32" else "posix",
        "extra": "",
    }


def pins(file, where):
    """{name: pin} that a lock installs in an environment."""
    chosen = [pin for pin, _ in locked(file) if not pin.marker or pin.marker.evaluate(where)]
    assert len(chosen) == len({name_of(pin) for pin in chosen}), "a package has two versions"
    return {name_of(pin): str(pin.specifier) for pin in chosen}


def test_every_direct_dependency_says_what_needs_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(direct()) == {name_of(Requirement(text)) for text in project["dependencies"]}
    card = {"jupyterlab", "tensorflow", "keras", "tensorflow-datasets", "matplotlib", "nbval", "papermill"}
    assert card <= set(direct())
    assert [name for name, (_, comment) in direct().items() if len(comment) < 8] == []


def test_conda_environment_has_the_same_packages_comments_and_versions():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    conda = commented(text)
    assert {name: comment for name, (_, comment) in conda.items()} == {
        name: comment for name, (_, comment) in direct().items()
    }
    python = next(item for item in yaml.safe_load(text)["dependencies"] if str(item).startswith("python="))
    lock = pins("requirements.txt", environment(python.removeprefix("python=")))
    assert {name: str(pin.specifier) for name, (pin, _) in conda.items()} == {name: lock[name] for name in conda}


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-gpu.txt"])
def test_every_pin_is_exact_and_has_hashes(file):
    assert len(locked(file)) > 100
    assert [pin for pin, hashes in locked(file) if not hashes or not re.fullmatch("==[^*,]+", str(pin.specifier))] == []
    head = (ROOT / file).read_text(encoding="utf-8")[:300]
    assert "make lock" in head or "uv pip compile" in head  # how it is made again


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_lock_serves_every_supported_system(python, platform):
    lock = pins("requirements.txt", environment(python, platform))
    for name, (requirement, _) in direct().items():
        assert requirement.specifier.contains(lock[name].removeprefix("==")), name


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_gpu_lock_holds_every_pin_of_the_base_lock(python):
    base, gpu = (pins(file, environment(python)) for file in ("requirements.txt", "requirements-gpu.txt"))
    assert {name: gpu.get(name) for name in base} == base
    assert any(name.startswith("nvidia-cudnn") for name in gpu)
    assert not any(name.startswith("nvidia-cu") for name in base)
