"""Build the Cython core. Everything else about the package stands in pyproject.toml.

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
import sys
from concurrent.futures import ThreadPoolExecutor

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

CHECKED = os.environ.get("SYSTOLIC_CHECKED", "0") not in ("", "0")

# GCC checks signed overflow only where it is undefined, and Python's own flags (-fwrapv,
# -fno-strict-overflow) define it; recovery would hide a failure in a log.
SANITIZE = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
UNDEFINED_OVERFLOW = ["-fstrict-overflow", "-fno-wrapv"]

# Instruction sets beyond what every processor of a kind has: their names in file names and in
# systolic/kernels/isa.h, and the flags of GCC and Clang, of Microsoft's compiler. One file is compiled for
# each; which is used is decided when the package is imported.
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"]
X86_64 = {
    "avx2": (["-mavx2", "-mfma", "-mf16c"], ["/arch:AVX2"]),
    "avxvnni": (["-mavx2", "-mfma", "-mf16c", "-mavxvnni"], ["/arch:AVX2"]),
    "avx512": (AVX512, ["/arch:AVX512"]),
    "avx512vnni": ([*AVX512, "-mavx512vnni"], ["/arch:AVX512"]),
}
ARM64 = {"neon": (["-march=armv8.2-a+dotprod"], [])}

KERNELS = "systolic/kernels"

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
        if self.plat_name.endswith(("x86_64", "amd64")):
            sets = X86_64
        elif self.plat_name.endswith(("aarch64", "arm64")):
            sets = ARM64
        else:
            sets = {}
        sources = {os.path.basename(path)[:-2]: path for path in sorted(glob.glob(f"{KERNELS}/*.c"))}
        special = {name: isa for name in sources for isa in (*X86_64, *ARM64) if name.endswith(f"_{isa}")}

        def compiled(name: str) -> str | None:
            flags, msvc_flags = sets[special[name]]
            try:
                return self.build_kernel(sources[name], msvc_flags if self.msvc else flags)
            except CompileError:
                return None

        # Each is a process of the compiler's.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            names = [name for name, isa in special.items() if isa in sets]
            found = dict(zip(names, pool.map(compiled, names), strict=True))
            unknown = {special[name] for name, path in found.items() if path is None}
            for isa in sorted(unknown):
                print(f"note: {isa} does not compile here (see above); built without", file=sys.stderr)
            macros: list[tuple[str, str | None]] = [
                (f"SYSTOLIC_HAVE_{isa.upper()}", None) for isa in sets if isa not in unknown
            ]
            rest = [name for name in sources if name not in special]
            others = pool.map(lambda name: self.build_kernel(sources[name], [], macros), rest)
            objects = dict(zip(rest, others, strict=True))
        return objects | {name: path for name, path in found.items() if path and special[name] not in unknown}

    def build_kernel(
        self, source: str, flags: list[str], macros: list[tuple[str, str | None]] | None = None
    ) -> str:
        """Compile one C source; return its object."""
        # Contraction to fused multiply-adds would change the bits of float32 arithmetic.
        exact = [] if self.msvc else ["-ffp-contract=off"]
        (path,) = self.compiler.compile(
            [source], output_dir=self.build_temp, macros=macros, extra_postargs=[*self.flags, *exact, *flags]
        )
        return path


# Beginnings of the names of the C sources that each extension is linked with.
PARTS: dict[str, tuple[str, ...]] = {
    "systolic._pool": (),
    "systolic._core": ("isa", "select", "array_", "gemm_"),
    "systolic._host": ("isa", "host_"),
}

extensions = [
    Extension(
        name,
        [f"{name.replace('.', '/')}.pyx"],
        include_dirs=["systolic"],
        depends=sorted([*glob.glob(f"{KERNELS}/*.[ch]"), *glob.glob("systolic/*.px[id]")]),
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
