"""Build the C kernel at installation, where there is a compiler.

Without one the installation goes on: the service then computes by gmpy2 and decimal alone.
"""

import os
import platform
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NUMBERS = Path("bigfib", "numbers")
SOURCE = "kernel.c"
LIBRARY = "libkernel.so"

# The bounds in kernel.c hold for arithmetic that is neither contracted nor reordered.
FLAGS = [
    "-std=c11",
    "-O3",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
    "-shared",
    "-fPIC",
]

# The library asks the processor before it is used; all others have vectors in their base.
VECTORS = ["-mavx2", "-mfma"] if platform.machine() in ("x86_64", "AMD64") else []


def compile_kernel(source: Path, library: Path, *extra: str) -> str | None:
    """Compile ``source`` to ``library``; return None, or why that failed.

    Args:
        source: The C file.
        library: Replaced if the compiler succeeds.
        extra: Further arguments of the compiler, which is ``$CC``, or ``cc``.
    """
    compiler = shlex.split(os.environ.get("CC") or "cc")
    unfinished = library.with_suffix(".new")
    command = [*compiler, *FLAGS, *VECTORS, *extra, "-o", str(unfinished), str(source), "-lm"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    except subprocess.CalledProcessError as error:
        return error.stderr or str(error)
    unfinished.replace(library)
    return None


class KernelBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Put the compiled kernel into wheels, and for an editable installation beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files are collected."""
        if self.target_name != "wheel":
            return
        numbers = Path(self.root) / NUMBERS
        library = numbers / LIBRARY
        library.unlink(missing_ok=True)
        failure = compile_kernel(numbers / SOURCE, library)
        if failure:
            self.app.display_warning(f"bigfib is installed without its C kernel: {failure}")
            return
        build_data["pure_python"] = False
        system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        # No Python headers are used, so that one library serves all versions.
        build_data["tag"] = f"py3-none-{system}"
        if version != "editable":
            build_data["force_include"][str(library)] = str(NUMBERS / LIBRARY)
