"""Runs the CUDA texts on the CPU, compiled with the host's compiler behind `cuda_on_cpu.h`."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

SHIM = Path(__file__).with_name("cuda_on_cpu.h")
COMPILER = next(filter(shutil.which, filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++"))), None)
FLAGS = ["-std=gnu++20", "-O1", "-w", "-shared", "-fPIC"]


class HostKernels:
    """Kernels compiled into one library, to be launched in place of the GPU's."""

    def __init__(self, kernels, folder):
        """Compile each of `kernels` in `folder`."""
        texts = [f'#include "{SHIM}"', *(_kernel_text(number, kernel) for number, kernel in enumerate(kernels))]
        source, library = folder / "kernels.cpp", folder / "kernels.so"
        source.write_text("\n".join(texts))
        subprocess.run([COMPILER, *FLAGS, "-o", library, source], check=True)
        functions = ctypes.CDLL(str(library))
        self.launchers = {kernel: functions[f"launch_{number}"] for number, kernel in enumerate(kernels)}
        for launcher in self.launchers.values():
            launcher.restype = ctypes.c_bool

    def launch(self, kernel, inputs, outputs):
        """Stands in for `cuda._launch`: the same grid, the same arguments in the same order; also for other kernels."""
        batch, _, height, width = outputs[0].shape
        grid, block = ((ctypes.c_uint * 3)(*extent) for extent in kernel.launch(batch, height, width))
        before, after = ([ctypes.c_void_p(each.data_ptr()) for each in tensors] for tensors in (inputs, outputs))
        arguments = [*before, ctypes.c_int(height), ctypes.c_int(width), *after]
        addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        assert self.launchers[kernel](grid, block, addresses), "a barrier that not every thread reaches"


def _kernel_text(number, kernel):
    """The kernel in a namespace and under a name of its own, with a function that launches it."""
    name = f"{kernel.name}_{number}"
    defines = {**kernel.defines, kernel.name: name}
    return "\n".join(
        [
            *(f"#define {key} {value}" for key, value in defines.items()),
            f"namespace kernel_{number} {{",
            f'#include "{kernel.source}"',
            "}",
            f'extern "C" bool launch_{number}(const Index* grid, const Index* block, void** arguments) {{',
            f"  return launch(kernel_{number}::{name}, grid, block, arguments);",
            "}",
            *(f"#undef {key}" for key in [*defines, "INLINE"]),
        ]
    )
