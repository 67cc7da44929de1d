"""What is compiled when galsearch is installed: one C file without dependencies, by whatever C compiler is there.

Without one the installation goes on and galsearch compares vectors with numpy, at about half the speed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOM = Path("galsearch/store/index")
LIBRARY = "_kernel" + {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


class CompileKernel(BuildHookInterface):
    """Compile galsearch/store/index/kernel.c next to itself and put the library into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        if trouble := compile_kernel(Path(self.root)):
            self.app.display_warning(f"galsearch will compare vectors with numpy: {trouble}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["artifacts"].append(str(ROOM / LIBRARY))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"  # the library knows nothing of Python


def compile_kernel(root: Path) -> str:
    """Compile the library; return what stood in the way, or nothing."""
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return "no C compiler was found (CC, cc, gcc, clang)"
    library = root / ROOM / LIBRARY
    partial = library.with_suffix(".partial")
    position = [] if sys.platform == "win32" else ["-fPIC"]
    flags = ["-O3", "-std=gnu11", "-shared", "-fvisibility=hidden", "-pthread", *position, "-o", str(partial)]
    command = [*compiler.split(), *flags, str(root / ROOM / "kernel.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{' '.join(command)} failed: {done.stderr.strip()}"
    partial.replace(library)
    return ""
