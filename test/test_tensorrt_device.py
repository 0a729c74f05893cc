"""TensorRT's back end on the driver's side: memory, streams, graphs and launches, through NVIDIA's bindings, without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_on_cpu import COMPILER

HERE = Path(__file__).parent


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on PATH")
def test_over_a_driver_on_the_cpu(tmp_path):
    """In a process of its own: a driver that is none must not be found by other tests."""
    library = tmp_path / "libcuda.so.1"
    flags = ["-std=gnu++17", "-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-ldl"]
    subprocess.run([COMPILER, HERE / "driver_on_cpu.cpp", "-o", library, *flags], check=True)
    paths = f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(HERE / "device_on_cpu.py")]
    result = subprocess.run(
        command, env={**os.environ, "LD_LIBRARY_PATH": paths}, capture_output=True, text=True, check=False, cwd=HERE
    )
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout
