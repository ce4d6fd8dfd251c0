"""Build the Cython core. Everything else about the package stands in pyproject.toml.

Environment variables
---------------------
SYSTOLIC_CHECKED=1
    Build the kernel with Cython's bounds checks and GCC's -fsanitize=undefined: slow, for the
    kernel's own tests. (Clang on Linux needs -shared-libsan in CFLAGS and LDFLAGS as well.)
CC, CFLAGS, LDFLAGS
    As everywhere. On x86-64 CFLAGS=-U__SSE2__ builds the plain C loops that other processors run.
"""

import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

CHECKED = os.environ.get("SYSTOLIC_CHECKED", "0") not in ("", "0")

# GCC checks signed overflow only where it is undefined, and Python's own flags (-fwrapv,
# -fno-strict-overflow) define it; recovery would hide a failure in a log.
SANITIZE = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
UNDEFINED_OVERFLOW = ["-fstrict-overflow", "-fno-wrapv"]

BUILD_FAILED = """
systolic could not build its core: see the compiler's own words above. If a compiler or Python's
headers are missing, install them and try again:
  Debian, Ubuntu   apt-get install gcc python3-dev
  Fedora           dnf install gcc python3-devel
  macOS            xcode-select --install
  Windows          the "Desktop development with C++" workload of Visual Studio Build Tools
"""


class BuildCore(build_ext):
    """build_ext with flags for the compiler at hand, and an error that says what to install."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # distutils compares times, not flags: it would keep a checked build where a plain one
        # is asked for.
        self.force = True

    def run(self) -> None:
        try:
            super().run()
        except (CompileError, LinkError, PlatformError) as error:
            sys.stderr.write(BUILD_FAILED)
            raise SystemExit(f"error: {error}") from error

    def build_extensions(self) -> None:
        for extension in self.extensions:
            if self.compiler.compiler_type == "msvc":
                extension.extra_compile_args = ["/O2"]
            elif CHECKED:
                extension.extra_compile_args = ["-O1", "-g", *UNDEFINED_OVERFLOW, *SANITIZE]
                extension.extra_link_args = SANITIZE
            else:
                # Python's own flags ask for debugging symbols, most of the file's size.
                extension.extra_compile_args = ["-O3", "-g0"]
        super().build_extensions()


core = Extension(
    "systolic._core",
    ["systolic/_core.pyx"],
    include_dirs=["systolic"],
    depends=["systolic/_lanes.h", "systolic/_dot.h"],
)

setup(
    ext_modules=cythonize(
        [core],
        # The only place for these switches: a header comment in the .pyx would silently win.
        compiler_directives={
            "language_level": 3,
            "embedsignature": True,
            "boundscheck": CHECKED,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "show_performance_hints": not CHECKED,
        },
        # Cython, too, compares times: each kind of build keeps its C file apart.
        build_dir="build/cython-checked" if CHECKED else "build/cython",
    ),
    cmdclass={"build_ext": BuildCore},
)
