"""Sets up everything in .venv: what `make` runs first. Needs only Python itself; does nothing where nothing changed.

    python3 tools/bootstrap.py [--train] [--test]

With a ROS 2 distribution sourced, rclpy and the interfaces come from it and the environment builds on the system's
Python; otherwise they come from PyPI as wheels. `--train` adds what trains, exports and runs networks, `--test` what
the tests need, which is all of that and more.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
LOG = VENV / "setup.log"
STAMPS = VENV / "stamps"
PINS = ROOT / "requirements.txt"
OLDEST, NEWEST = (3, 11), (3, 13)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--test", action="store_true", help="install what the tests need, too")
    parser.add_argument("--train", action="store_true", help="install what trains, exports and runs networks, too")
    wanted = parser.parse_args()
    distribution = os.environ.get("ROS_DISTRO", "") if importlib.util.find_spec("rclpy") else ""
    check_system()
    start = time.monotonic()
    make_environment(distribution)
    build_messages = build_messages_with_cmake if distribution else build_messages_wheel
    install("dfd_msgs", "building dfd_msgs", [ROOT / "dfd_msgs"], build_messages)
    # A distribution brings its own versions, which its compiled packages need: pins are for a bare machine.
    pinned = not distribution
    package = [ROOT / name for name in ("setup.py", "setup.cfg", "package.xml", "scripts", "launch", "config")]
    ros = "" if distribution else "[wheels]"
    install(
        "dfd_ros",
        "installing dfd_ros and what it needs",
        package,
        lambda: pip("install", "-e", f".{ros}", pinned=pinned),
    )
    for is_wanted, name, what, extras in (
        (wanted.train, "training", "installing what training needs", "train,infer"),
        (wanted.test, "tests", "installing what the tests need", "test"),
    ):
        if is_wanted:
            add = partial(pip, "install", "-e", f".[{extras}]", pinned=pinned)
            install(name, what, [ROOT / "setup.py"], add)
    elapsed = time.monotonic() - start
    if elapsed > 1.0:
        print(f"set up in {elapsed:.0f} s")


def check_system() -> None:
    """Stop with one sentence and one command where the system lacks something."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        versions = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
        sys.exit(
            f"Python {versions} is needed, {sys.executable} is {sys.version.split()[0]}: "
            "name another, as in `make PYTHON=python3.12 vehicle`"
        )
    if sys.platform != "linux":
        sys.exit(f"Linux is needed, this is {sys.platform}")
    missing = []
    if importlib.util.find_spec("ensurepip") is None:
        missing.append(("Python's venv module", "python3-venv"))
    if not any(shutil.which(compiler) for compiler in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if compiler):
        missing.append(("a C++ compiler", "g++"))
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing.append(("Python's headers", "python3-dev"))
    if missing:
        things, packages = zip(*missing, strict=True)
        sys.exit(f"missing: {', '.join(things)}; install with: sudo apt-get install -y {' '.join(packages)}")


def make_environment(distribution: str) -> None:
    """Make .venv, anew where it was made by another Python or for another kind of ROS."""
    identity = f"{sys.version} {sys.base_prefix} {distribution}"
    stamp = STAMPS / "python"
    if stamp.is_file() and stamp.read_text() == identity:
        return
    print(f"set-up: making {VENV.name}, with ROS 2 {distribution or 'from PyPI'}", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    options = ["--system-site-packages"] if distribution else []
    subprocess.run([sys.executable, "-m", "venv", *options, str(VENV)], check=True)
    STAMPS.mkdir()
    stamp.write_text(identity)


def build_messages_wheel() -> None:
    """Build and install dfd_msgs against the ROS wheels."""
    pip("install", "--force-reinstall", "--no-deps", "./dfd_msgs", pinned=True)


def build_messages_with_cmake() -> None:
    """Build and install dfd_msgs into .venv against the sourced ROS distribution, unless a sourced workspace has it."""
    found = importlib.util.find_spec("dfd_msgs")
    if found is not None and found.origin is not None:
        return
    build = VENV / "build" / "dfd_msgs"
    run("cmake", "-S", "dfd_msgs", "-B", str(build), f"-DCMAKE_INSTALL_PREFIX={VENV}", "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", str(build), "--parallel")
    run("cmake", "--install", str(build))


def install(name: str, what: str, inputs: Iterable[Path], action: Callable[[], None]) -> None:
    """Run the action unless it has run for these very inputs."""
    stamp, current = STAMPS / name, digest(inputs)
    if stamp.is_file() and stamp.read_text() == current:
        return
    print(f"set-up: {what}", flush=True)
    action()
    stamp.write_text(current)


def digest(inputs: Iterable[Path]) -> str:
    """A hash of the files in and below the inputs, and of the pins."""
    total = hashlib.sha256()
    for path in [*inputs, PINS]:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" not in file.parts:
                total.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def pip(*arguments: str, pinned: bool) -> None:
    """Run .venv's pip; `pinned`: with the pins as constraints, for builds too."""
    pins = {"PIP_CONSTRAINT": str(PINS), "PIP_BUILD_CONSTRAINT": str(PINS)} if pinned else {}
    run(str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments, **pins)


def run(*command: str, **environment: str) -> None:
    """Run a command into the log; where it fails, show the log's end and stop."""
    everything = {**os.environ, **environment}
    with LOG.open("a") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        log.flush()
        result = subprocess.run(command, cwd=ROOT, env=everything, stdout=log, stderr=subprocess.STDOUT, check=False)
    if result.returncode:
        tail = LOG.read_text(errors="replace").splitlines()[-25:]
        sys.exit("\n".join(tail) + f"\nset-up failed at: {' '.join(command)}\nthe whole log: {LOG.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
