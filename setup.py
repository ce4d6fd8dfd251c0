"""Build the compiled modules. Everything else about the package stands in pyproject.toml.

Environment variables
---------------------
SYSTOLIC_CHECKED=1
    Build the kernel with Cython's bounds checks and GCC's -fsanitize=undefined: slow, for the
    kernel's own tests. (Clang on Linux needs -shared-libsan in CFLAGS and LDFLAGS as well.)
CC, CFLAGS, LDFLAGS
    As everywhere. On x86-64 CFLAGS=-U__SSE2__ builds the plain C loops that other processors run.
"""

import glob
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

CHECKED = os.environ.get("SYSTOLIC_CHECKED", "0") not in ("", "0")

# GCC checks signed overflow only where it is undefined, and Python's own flags (-fwrapv,
# -fno-strict-overflow) define it; recovery would hide a failure in a log.
SANITIZE = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
UNDEFINED_OVERFLOW = ["-fstrict-overflow", "-fno-wrapv"]

KERNELS = "systolic/kernels"

# By the end of a platform's name.
PROCESSORS = {"x86_64": "X86_64", "amd64": "X86_64", "aarch64": "ARM64", "arm64": "ARM64"}


class InstructionSet(NamedTuple):
    """A line of isa_list.h: the flags of GCC and Clang, or of MSVC, for sources named ``*_<name>.c``."""

    name: str
    processors: str
    flags: list[str]
    msvc_flags: list[str]


def instruction_sets() -> list[InstructionSet]:
    """Read isa_list.h."""
    text = Path(f"{KERNELS}/isa_list.h").read_text(encoding="utf-8").replace("\\\n", " ")
    rows = re.findall(r'X\((\w+),\s*(\w+),(?:\s*\w+,){5}\s*"([^"]*)",\s*"([^"]*)"\)', text)
    return [InstructionSet(name, kind, flags.split(), msvc.split()) for name, kind, flags, msvc in rows]


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
        self.msvc = self.compiler.compiler_type == "msvc"
        link: list[str] = []
        if self.msvc:
            self.flags = ["/O2"]
        elif CHECKED:
            self.flags = ["-O1", "-g", *UNDEFINED_OVERFLOW, *SANITIZE]
            link = SANITIZE
        else:
            # Python's own flags ask for debugging symbols, most of the file's size.
            self.flags = ["-O3", "-g0"]
        objects = self.build_kernels()
        for extension in self.extensions:
            extension.extra_compile_args = self.flags
            extension.extra_link_args = link
            parts = PARTS[extension.name]
            extension.extra_objects = [path for name, path in objects.items() if name.startswith(parts)]
        super().build_extensions()

    def build_kernels(self) -> dict[str, str]:
        """Compile the C sources, each for its instruction set; return objects by source name.

        A compiler that does not know an instruction set does without: the package then uses the
        next lower one.
        """
        here = next((kind for end, kind in PROCESSORS.items() if self.plat_name.endswith(end)), "")
        every = instruction_sets()
        special = {isa.name: isa for isa in every if isa.processors != "ANY"}
        sources = {os.path.basename(path)[:-2]: path for path in sorted(glob.glob(f"{KERNELS}/*.c"))}
        isa_of = {name: special.get(name.rpartition("_")[2]) for name in sources}

        def compiled(name: str) -> str | None:
            isa = isa_of[name]
            try:
                return self.build_kernel(sources[name], isa.msvc_flags if self.msvc else isa.flags)
            except CompileError:
                return None

        # Each is a process of the compiler's.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            names = [name for name, isa in isa_of.items() if isa and isa.processors == here]
            found = dict(zip(names, pool.map(compiled, names), strict=True))
            built = [isa for isa in every if isa.processors in ("ANY", here)]
            for isa in list(built):
                if None in (path for name, path in found.items() if isa_of[name] is isa):
                    print(f"note: {isa.name} does not compile here; built without", file=sys.stderr)
                    built.remove(isa)
            macros = [(f"SYSTOLIC_HAVE_{isa.name}", str(int(isa in built))) for isa in every]
            rest = [name for name, isa in isa_of.items() if isa is None]
            others = pool.map(lambda name: self.build_kernel(sources[name], [], macros), rest)
            objects = dict(zip(rest, others, strict=True))
        return objects | {name: path for name, path in found.items() if isa_of[name] in built}

    def build_kernel(self, source: str, flags: list[str], macros: list[tuple[str, str]] | None = None) -> str:
        """Compile one C source; return its object."""
        # Contraction to fused multiply-adds would change the bits of float32 arithmetic.
        exact = [] if self.msvc else ["-ffp-contract=off"]
        (path,) = self.compiler.compile(
            [source], output_dir=self.build_temp, macros=macros, extra_postargs=[*self.flags, *exact, *flags]
        )
        return path


# Beginnings of the names of the C sources that each extension is linked with.
PARTS: dict[str, tuple[str, ...]] = {
    "systolic._threads": ("pool", "scratch"),
    "systolic._kernels": ("isa", "array_", "gemm_", "host_", "numbers_", "ordered_"),
    "systolic._core": (),
    "systolic._gemm": (),
    "systolic._host": (),
    "systolic._summary": (),
    "systolic._timeline": (),
}

extensions = [
    Extension(
        name,
        [f"{name.replace('.', '/')}.pyx"],
        include_dirs=["systolic"],
        depends=sorted([*glob.glob(f"{KERNELS}/*.*"), *glob.glob("systolic/*.px[id]")]),
    )
    for name in PARTS
]

setup(
    ext_modules=cythonize(
        extensions,
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
