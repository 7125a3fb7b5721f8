"""gpugrad against PyTorch, JAX and HIPS/autograd: ``pip install -e '.[bench]'``, then ``python -m benchmarks`` writes RESULTS.md.

Each measurement runs in a process of its own, and the contenders take turns, so that none profits from another's caches
or pays for its threads. Let nothing else run. ``python -m benchmarks --quick`` goes through everything at tiny sizes and
prints what it would write: its numbers mean nothing.
"""
