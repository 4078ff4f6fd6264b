"""Make `.venv` from the lock. Standard library only: this runs before anything is installed.

Safe to run twice, at the same time too, and after being killed: `.venv/ready` is written last.
"""

import hashlib
import os
import shutil
import subprocess
import sys

OLDEST, NEWEST = (3, 11), (3, 13)
NEEDED_GB = 4
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
READY = os.path.join(VENV, "ready")
PYTHON = os.path.join(VENV, *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))


def stop(message):
    sys.exit("error: " + message)


def suitable_python():
    """Ourselves, or the newest suitable Python on the PATH."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which("python3.%d" % minor)
        if found and subprocess.call([found, "-c", "pass"], stderr=subprocess.DEVNULL) == 0:
            return found
    stop(
        "this course needs Python %d.%d to %d.%d, and python3 here is %d.%d. "
        "Install one of these and run: make PYTHON=/path/to/python3.12 ..." % (OLDEST + NEWEST + sys.version_info[:2])
    )


def lock_this_process():
    """Wait until no other installation works in this folder."""
    try:
        handle = open(os.path.join(ROOT, ".venv.lock"), "w")
    except OSError as error:
        stop(
            "cannot write to the course's folder (%s). Copy the course to a folder of your own and run make there."
            % error.strerror
        )
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def wanted(gpu):
    """The lock files to install, and the line that `.venv/ready` must hold for them."""
    files = ["requirements.txt"] + (["requirements-gpu.txt"] if gpu else [])
    parts = [os.fsencode(ROOT)] + [open(os.path.join(ROOT, name), "rb").read() for name in files]
    return files, " ".join(hashlib.sha256(part).hexdigest() for part in parts)


def is_ready(stamp):
    try:
        return open(READY).read().startswith(stamp) and os.path.exists(PYTHON)
    except OSError:
        return False


def make_venv(python):
    print("Making .venv with %s (once; a download of about 700 MB, some minutes)" % python, flush=True)
    if shutil.disk_usage(ROOT).free < NEEDED_GB * 1e9:
        stop("the environment needs %d GB on this disk and less is free." % NEEDED_GB)
    if subprocess.call([python, "-m", "venv", "--clear", VENV]):
        stop(
            "%s could not make a virtual environment (see above). "
            "On Debian and Ubuntu: sudo apt install python3-venv" % python
        )


def finish_venv():
    """The course's folder on the path of every kernel of this environment, and no news pop-up in JupyterLab."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.check_output([PYTHON, "-c", code], universal_newlines=True).strip()
    with open(os.path.join(site, "course.pth"), "w", encoding="utf-8") as file:
        file.write(ROOT + "\n")
    config = os.path.join(VENV, "etc", "jupyter", "labconfig")
    os.makedirs(config, exist_ok=True)
    with open(os.path.join(config, "page_config.json"), "w") as file:
        file.write('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}\n')


def main():
    files, stamp = wanted("--gpu" in sys.argv[1:])
    if is_ready(stamp):
        return
    python = suitable_python()
    lock = lock_this_process()
    if is_ready(stamp):  # the installation that we waited for made it
        return
    if not (os.path.exists(READY) and os.path.exists(PYTHON)):
        make_venv(python)
    else:
        os.remove(READY)
    for name in files:
        call = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        if subprocess.call(call + ["--progress-bar", "off", "-q", "-r", os.path.join(ROOT, name)]):
            stop("the packages could not be installed (see above). This step needs the network; run make again.")
    finish_venv()
    with open(READY, "w") as file:
        file.write(stamp + "\n")
    lock.close()


if __name__ == "__main__":
    main()
