"""What is compiled when galsearch is installed: two C files without dependencies, by whatever C compiler is there.

Without one the installation goes on, and galsearch compares vectors with numpy, at about half the speed, and measures
galaxies with numpy, which takes longer too.
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

SOURCES = {
    Path("galsearch/store/index/kernel.c"): ("-pthread",),
    # rounded as numpy rounds, and no function of mathematics sets errno, so that several can be worked out side by side
    Path("galsearch/science/pixels.c"): ("-ffp-contract=off", "-fno-math-errno"),
}
PAGE = "galsearch/site/assets"  # of static sites, built from galsearch/site/web; git ignores it, a wheel has it
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


class CompileSources(BuildHookInterface):
    """Compile each C file next to itself, kernel.c to _kernel.so; the wheel gets the libraries and the built page."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        if (Path(self.root) / PAGE / "index.html").is_file():
            build_data["artifacts"].append(f"{PAGE}/**")
        elif version != "editable":
            self.app.display_warning(f"`galsearch site` will have no page: {PAGE} is not built, run `make web` first")
        for source in SOURCES:
            if trouble := compiled(Path(self.root), source):
                self.app.display_warning(f"galsearch will do with numpy what is compiled elsewhere: {trouble}")
                return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["artifacts"] += [str(library_of(source)) for source in SOURCES]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"  # the library knows nothing of Python


def library_of(source: Path) -> Path:
    """Return where the library of a C file lies."""
    return source.with_name(f"_{source.stem}{SUFFIX}")


def compiled(root: Path, source: Path) -> str:
    """Compile one of the sources; return what stood in the way, or nothing."""
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return "no C compiler was found (CC, cc, gcc, clang)"
    library = root / library_of(source)
    partial = library.with_suffix(".partial")
    position = [] if sys.platform == "win32" else ["-fPIC"]
    flags = ["-O3", "-std=gnu11", "-shared", "-fvisibility=hidden", *position, *SOURCES[source]]
    command = [*compiler.split(), *flags, "-o", str(partial), str(root / source), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{' '.join(command)} failed: {done.stderr.strip()}"
    partial.replace(library)
    return ""
