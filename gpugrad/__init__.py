"""gpugrad: derivatives for NumPy and CuPy arrays."""
