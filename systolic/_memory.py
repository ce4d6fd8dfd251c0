"""Available memory, so that larger sizes are refused with a clear error before anything is allocated."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

# Below this size, do not check what is available: that takes some 50 microseconds.
SMALL_BYTES = 1 << 26

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")

# By version: the hierarchy's folder, then the files of the limit and of the bytes in use, and what
# memory.stat calls page cache that the kernel can take back.
_CGROUP_FILES = {
    1: ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("", "memory.max", "memory.current", "inactive_file"),
}


def available_bytes() -> int | None:
    """Return the bytes that this process can still allocate, None if the system does not report it.

    On Linux what the kernel estimates and the swap that is free, within the limits of the process's
    control groups and of its address space (``ulimit -v``); elsewhere all physical memory.
    """
    found = [_machine_bytes(), _limit_bytes(), *_cgroup_bytes()]
    return min((size for size in found if size is not None), default=None)


def require(size: int, what: str) -> None:
    """Raise MemoryError if `size` bytes are more than available; `what` says what needs them."""
    if size <= SMALL_BYTES:
        return
    there = available_bytes()
    if there is not None and size > there:
        raise MemoryError(
            f"{what} takes {size:,} bytes ({size / 2**30:,.1f} GiB), but {there:,} "
            f"({there / 2**30:,.1f} GiB) are available; use smaller sizes or a machine with more memory"
        )


def require_array(shape: Sequence[int], dtype: str | np.dtype, what: str) -> None:
    """Raise MemoryError if an array of this shape and type is larger than the available memory."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size > SMALL_BYTES:
        require(size, f"{what} {tuple(map(int, shape))} {kind.name}")


def address_space() -> int | None:
    """Return the bytes of this process's address space, None where the system does not say."""
    try:
        pages = int((_PROC / "self" / "statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, LookupError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limit_bytes() -> int | None:
    """Return what the limit on the address space leaves, None if there is none."""
    if sys.platform == "win32":
        return None
    import resource

    most, held = resource.getrlimit(resource.RLIMIT_AS)[0], address_space()
    return None if most == resource.RLIM_INFINITY or held is None else max(most - held, 0)


def _machine_bytes() -> int | None:
    try:
        lines = (_PROC / "meminfo").read_text(encoding="ascii").splitlines()
        fields = [line.partition(":") for line in lines]
        sizes = {name: int(rest.split()[0]) << 10 for name, _, rest in fields}
        return sizes["MemAvailable"] + sizes.get("SwapFree", 0)
    except (OSError, ValueError, LookupError):
        pass  # not Linux, or a kernel before 3.14
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None  # Windows has no sysconf, and some systems not these names


def _cgroup_bytes() -> Iterator[int]:
    """Yield the bytes that each limit of the process's control groups leaves."""
    try:
        # A group's name may be any bytes, as a file's.
        lines = os.fsdecode((_PROC / "self" / "cgroup").read_bytes()).splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        folder, *files = _CGROUP_FILES[2 if number == "0" else 1]
        # A group's limit holds for its subgroups too; inside a container its own group may be the root.
        group = Path(path.lstrip("/"))
        for inner in (group, *group.parents):
            left = _left(_CGROUPS / folder / inner, *files)
            if left is not None:
                yield left


def _left(group: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        most = int((group / limit).read_text(encoding="ascii"))
        used = int((group / usage).read_text(encoding="ascii"))
        pairs = (line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        free = next((int(value) for name, value in pairs if name == cache), 0)
    except (OSError, ValueError):
        return None  # no such group here, or "max": no limit
    return max(most - used + free, 0)
