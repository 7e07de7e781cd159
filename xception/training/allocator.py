"""glibc's malloc, told to keep what a training step frees.

A step allocates and frees the same large activations again and again. By default glibc hands each
back to the kernel and asks for it anew, and the kernel clears every page: measured here, that is up
to half of a step of separable convolutions on a CPU (benchmarks/RESULTS.md).
"""

import ctypes
import platform

_M_TRIM_THRESHOLD = -1  # <malloc.h>
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Serve large blocks from the heap and never trim it; False where malloc is not glibc's."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
