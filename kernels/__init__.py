"""Fused kernels, imported as ``gpugrad.kernels``: functions from plain arrays to plain arrays, which know nothing of the tape.

Each family of kernels is three files: ``NAME.py`` with the references in plain array functions (the specification) and the launches of the CUDA kernels,
``NAME_cpu.py`` with the Numba twins, and ``NAME.cu`` with the CUDA kernels. The twins of a kernel have one signature, and the tests hold them to each
other; :class:`~gpugrad.kernels.kernel.Kernel` chooses among them. An operation in ``gpugrad/ops`` calls a kernel for its value or for its fused
gradient, and keeps its rules there: what is differentiated and what is fast are then read and tested apart.

The folder lies at the top of the checkout, where someone who came for the kernels finds it; the link
``gpugrad/kernels`` puts it into the package, because a top-level module ``kernels`` would collide with others' packages.
"""

from gpugrad.kernels.kernel import KERNELS, Kernel, use

__all__ = ["KERNELS", "Kernel", "use"]
