"""What this computer offers the course, and what is wrong: `make doctor`, or `python tools/doctor.py`.

Standard library only, so that it works before anything is installed. Exit status 1 if something stops the course.
"""

import glob
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import install

ROOT = install.ROOT
PACKAGES = ["tensorflow", "keras", "tensorflow-datasets", "jupyterlab", "numpy", "matplotlib", "papermill"]
CUDA = "nvidia-cudnn-cu12"  # one of the packages that GPU=1 adds
NEEDED_MEMORY_GB = 4  # the most that a notebook may need
NETWORK_SECONDS = 1

problems = []  # (does it stop the course, what is wrong and what to do)


def say(name, text):
    print(f"{name:<10} {text}")


def wrong(text, stops=False):
    problems.append((stops, text))


def versions():
    """Versions of the packages that this Python sees, None for those that are missing."""
    try:
        from importlib import metadata
    except ImportError:  # before Python 3.8
        return {name: None for name in PACKAGES + [CUDA]}

    found = {}
    for name in PACKAGES + [CUDA]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def locked():
    """Versions that requirements.txt pins: several where they depend on the Python or the system."""
    pins = {}
    with open(os.path.join(ROOT, "requirements.txt"), encoding="utf-8") as file:
        for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", file.read(), re.MULTILINE):
            pins.setdefault(name, []).append(version)
    return pins


def check_python():
    """Whether this Python and .venv can run the course; returns the installed versions."""
    say("Python", f"{platform.python_version()} at {sys.executable}")
    ours = os.path.abspath(sys.prefix) == os.path.abspath(install.VENV)
    found = versions()
    missing = [name for name in PACKAGES if not found[name]]
    here = ours or bool(found["tensorflow"])  # else this is a Python that the course has nothing to do with
    ready = install.is_ready(install.wanted(gpu=False)[1])
    state = "ready" if ready else "not ready" if os.path.isdir(install.VENV) else "not there"
    say(".venv", state + ("" if ours or not ready else ", and this is another Python"))
    if ready and not ours:
        say("packages", "run make doctor to see those of .venv")
        return found
    say("packages", ", ".join(f"{name} {found[name] or 'missing'}" for name in PACKAGES))
    if not here:
        try:
            install.suitable_python()
        except SystemExit as error:
            wrong(str(error.code).replace("error: ", ""), stops=True)
        if state == "not there":
            wrong("The course is not installed yet. Any make target does it, for example: make run")
    if state == "not ready" and (ours or not here):
        wrong("The installation in .venv is not complete, or of an older version of the course. Run: make env")
    if here and missing:
        advice = "Delete the folder .venv and run: make env" if ours else "Install as README.md says"
        wrong(f"Packages are missing: {', '.join(missing)}. {advice}", stops=True)
    pins = locked()
    other = [name for name in PACKAGES if found[name] and found[name] not in pins.get(name, [found[name]])]
    if here and other:
        text = ", ".join(f"{name} {found[name]} (tested with {' or '.join(pins[name])})" for name in other)
        wrong(f"Other versions than the course is tested with: {text}. Delete .venv and run: make env")
    return found


def check_gpu(found):
    """NVIDIA's driver, and whether TensorFlow has the libraries to use it."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        say("GPU", "none that NVIDIA's driver (nvidia-smi) reports; the course runs on the CPU")
        return
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.check_output(query, stderr=subprocess.STDOUT, timeout=5).decode(errors="replace").split("\n")
    except (OSError, subprocess.SubprocessError):
        say("GPU", "nvidia-smi is there and reports an error")
        wrong("NVIDIA's driver does not answer, so the GPU cannot be used. Run nvidia-smi to see why.")
        return
    say("GPU", "; ".join(line.strip() for line in lines if line.strip()) + " (name, memory, driver)")
    say("CUDA", "installed in this environment" if found[CUDA] else "not installed in this environment")
    if not found[CUDA] and found["tensorflow"]:
        wrong("The GPU is not used: TensorFlow's CUDA libraries are not installed. Run: make run GPU=1")


def free_memory():
    """Bytes that programs can still have, or None where we do not know how to ask."""
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo") as file:
            free = int(re.search(r"MemAvailable:\s+(\d+)", file.read()).group(1)) * 1024
        try:  # a container may have less than its machine
            with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
                free = min(free, int(limit.read()) - int(used.read()))
        except (OSError, ValueError):
            pass
        return free
    if sys.platform == "darwin":
        text = subprocess.check_output(["vm_stat"]).decode()
        pages = re.findall(r"Pages (?:free|inactive|speculative):\s+(\d+)", text)
        return sum(map(int, pages)) * int(re.search(r"page size of (\d+)", text).group(1))
    if os.name == "nt":
        import ctypes

        fields = (ctypes.c_ulonglong * 8)()  # MEMORYSTATUSEX: two 32-bit numbers, then 64-bit ones
        ctypes.cast(fields, ctypes.POINTER(ctypes.c_uint32))[0] = ctypes.sizeof(fields)
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(fields)):
            return fields[2]
    return None


def check_room():
    """Cores, memory, disk, and whether the course's folder can be written."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory, disk = free_memory(), shutil.disk_usage(ROOT).free
    say("cores", cores)
    say("memory", "unknown" if memory is None else f"{memory / 1e9:.1f} GB free")
    say("disk", f"{disk / 1e9:.1f} GB free at {ROOT}")
    if memory is not None and memory < NEEDED_MEMORY_GB * 1e9:
        wrong(f"Less than {NEEDED_MEMORY_GB} GB of memory is free. Close other programs and notebooks.")
    needed = 1 if os.path.exists(install.READY) else install.NEEDED_GB
    if disk < needed * 1e9:
        wrong(f"Less than {needed} GB is free on the course's disk. Free some space.", stops=True)
    build = os.path.join(ROOT, "build")
    try:
        with tempfile.TemporaryFile(dir=build if os.path.isdir(build) else ROOT):
            pass
        say("build/", "can be written")
    except OSError as error:
        say("build/", f"cannot be written ({error.strerror})")
        wrong("The course cannot write to its folder. Copy it to a folder of your own.", stops=True)


def check_data(host_answers):
    """Which data tier notebooks will use for MNIST, by the rules of helpers/data.py."""
    chosen = os.environ.get("TFDS_DATA_DIR")
    folder = os.path.join(ROOT, "data", "downloads")
    if chosen:
        folder = os.path.expanduser(chosen)
        folder = os.path.abspath(folder) if os.path.isdir(folder) else os.path.join(ROOT, folder)
    source = f"TFDS_DATA_DIR is {chosen}" if chosen else f"TFDS_DATA_DIR is not set, so {folder} is used"
    mnist = os.path.join(glob.escape(folder), "mnist", "[0-9]*")
    if glob.glob(os.path.join(mnist, "dataset_info.json")):
        tier = "full: MNIST is prepared"
    elif host_answers:
        tier = "full: MNIST will be downloaded (12 MB)"
    else:
        tier = "sample: scikit-learn's digits, because MNIST is not prepared and its server does not answer"
    say("data", f"{tier} ({source})")
    for version in glob.glob(mnist):
        if not os.path.exists(os.path.join(version, "dataset_info.json")):
            wrong(f"MNIST in {version} is not complete. Delete this folder; it will be downloaded anew.")
    if chosen and not os.path.isdir(folder):
        wrong(f"TFDS_DATA_DIR names a folder that does not exist: {chosen}. Correct it, or unset it.")


class Network(threading.Thread):
    """Asks the dataset server for any answer. A name lookup has no time limit, so a thread is left behind."""

    def __init__(self):
        super().__init__(daemon=True)
        with open(os.path.join(ROOT, "helpers", "data.py"), encoding="utf-8") as file:
            self.url = re.search(r'"mnist": \("(https?://[^"]+)"', file.read()).group(1)
        self.host, self.heard = self.url.split("/")[2], False

    def run(self):
        try:
            urllib.request.urlopen(urllib.request.Request(self.url, method="HEAD"), timeout=NETWORK_SECONDS).close()
            self.heard = True
        except urllib.error.HTTPError:
            self.heard = True  # an error page is an answer too
        except (OSError, ValueError):
            pass


def main():
    network = Network()
    network.start()
    say("system", platform.platform())
    found = check_python()
    check_gpu(found)
    check_room()
    network.join(NETWORK_SECONDS)
    say("network", f"{network.host} {'answers' if network.heard else 'did not answer in 1 s'}")
    check_data(network.heard)
    if not problems:
        print("\nNothing is wrong.")
    else:
        print("\nWhat is wrong:")
        for stops, text in sorted(problems, key=lambda problem: not problem[0]):
            print(f"- {'(stops the course) ' if stops else ''}{text}")
    return int(any(stops for stops, _ in problems))


if __name__ == "__main__":
    sys.exit(main())
