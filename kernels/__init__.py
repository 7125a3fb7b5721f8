"""Fused kernels, imported as ``gpugrad.kernels``: functions from plain arrays to plain arrays, which know nothing of the tape.

Each kernel will stand here as a pair of files: ``NAME.py`` with the reference in plain array functions (the
specification), its Numba twin for the CPU and the launch of the CUDA one, and ``NAME.cu`` with that kernel. All three
have one signature and the tests hold them to each other. An operation in ``gpugrad/ops`` calls a kernel for its value
or for its fused gradient, and keeps its rules there: what is differentiated and what is fast are then read and tested
apart.

The folder lies at the top of the checkout, where someone who came for the kernels finds it; the link
``gpugrad/kernels`` puts it into the package, because a top-level module ``kernels`` would collide with others' packages.
"""
