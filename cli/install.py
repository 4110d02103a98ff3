"""Builds .venv from requirements.lock, with whatever Python the system has; `./kisum` calls it.

Every refusal is one line on standard error. Written so that Pythons too old to run Kisum still parse it.
"""

import errno
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOCK = os.path.join(ROOT, "requirements.lock")
ENVIRONMENT = os.path.join(ROOT, ".venv")
MARK = os.path.join(ENVIRONMENT, ".lock-sha256")
NEEDED_BYTES = 1 << 30

NO_NETWORK = (
    "Failed to establish a new connection",
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "Connection refused",
    "Network is unreachable",
    "Temporary failure in name resolution",
    "from versions: none",
)


class Refusal(Exception):  # noqa: N818  a fact, said as one
    """What is wrong and what to do, in one line."""


def check_python():
    if not (3, 11) <= sys.version_info[:2] < (3, 15):
        raise Refusal("Python 3.11 to 3.14 is needed, %s is %d.%d" % (sys.executable, *sys.version_info[:2]))
    system, machine, library = sys.platform, platform.machine(), platform.libc_ver()
    if system != "linux" or machine != "x86_64" or sys.maxsize < 1 << 32:
        raise Refusal("Linux on x86-64 is needed, this is %s on %s" % (platform.system(), machine))
    if library[0] != "glibc":
        raise Refusal(
            "a Linux with glibc is needed (Debian, Ubuntu, Fedora and others); this one, like Alpine, has musl"
        )
    try:
        import ensurepip  # noqa: F401, PLC0415
        import venv  # noqa: F401, PLC0415
    except ImportError as error:
        raise Refusal(
            "%s has no %s module: install it (on Debian and Ubuntu: apt install python3-venv) and run again"
            % (sys.executable, error.name)
        ) from None


def check_folder():
    if not os.access(ROOT, os.W_OK | os.X_OK) or (os.path.exists(ENVIRONMENT) and not os.access(ENVIRONMENT, os.W_OK)):
        raise Refusal("%s is not writable: run as its owner or make a clone of your own" % ROOT)
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES:
        raise Refusal(
            "%s has %d MB of free disk and %d MB are needed: free some" % (ROOT, free >> 20, NEEDED_BYTES >> 20)
        )


def lock_sum():
    with open(LOCK, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def is_built():
    """Whether .venv was finished, from this very lock."""
    try:
        with open(MARK) as file:
            return file.read().strip() == lock_sum() and os.access(os.path.join(ENVIRONMENT, "bin", "python"), os.X_OK)
    except FileNotFoundError:
        return False


def download_size():
    """What `make lock` measured, such as "120 MB"."""
    with open(LOCK) as file:
        return file.readline().rpartition(": ")[2].strip()


def build():
    print("Installing Kisum's packages into %s: up to %s to download." % (ENVIRONMENT, download_size()), flush=True)
    made_from = lock_sum()
    # Built in place, for its scripts name their interpreter by full path; the mark, written last, says it is whole.
    run([sys.executable, "-I", "-m", "venv", "--clear", ENVIRONMENT], "the environment could not be made")
    bar = "on" if sys.stdout.isatty() else "off"
    pip = [os.path.join(ENVIRONMENT, "bin", "python"), "-I", "-m", "pip", "install", "--no-input", "--retries", "3"]
    pip += ["--disable-pip-version-check", "--progress-bar", bar, "--require-hashes", "--only-binary", ":all:"]
    run([*pip, "--requirement", LOCK], "the packages could not be installed")
    with open(MARK + ".partial", "w") as file:
        file.write(made_from + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(MARK + ".partial", MARK)


def run(command, failure):
    """Run a step whose output goes to the terminal as it comes, and whose errors become one line."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX")
    }
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, universal_newlines=True)
    errors = process.communicate()[1]
    if process.returncode == 0:
        return
    if any(sign in errors for sign in NO_NETWORK):
        raise Refusal("no network: %s; connect this machine to its package registry and run again" % failure)
    if "No space left on device" in errors:
        raise Refusal("%s has no free disk left: free %d MB and run again" % (ROOT, NEEDED_BYTES >> 20))
    if "DO NOT MATCH THE HASHES" in errors:
        raise Refusal("a package is not the pinned one: check the proxy or mirror in between and run again")
    lines = [line for line in errors.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    raise Refusal("%s: %s" % (failure, " ".join(named[:1]) or "exit code %d" % process.returncode))


def main():
    check_python()
    check_folder()
    # Two starts at the same moment: the second waits, and then finds the work done.
    with open(LOCK, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_built():
            build()


if __name__ == "__main__":
    try:
        main()
    except Refusal as refusal:
        sys.exit("kisum: %s" % refusal)
    except OSError as error:
        advice = "free some disk" if error.errno == errno.ENOSPC else "correct it and run again"
        sys.exit("kisum: %s: %s: %s" % (error.filename or ROOT, error.strerror, advice))
    except KeyboardInterrupt:
        sys.exit("kisum: stopped; run again to go on")
