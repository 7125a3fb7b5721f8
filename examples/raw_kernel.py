"""Your own CUDA kernels, differentiated: the Morse potential of molecular dynamics as two raw kernels.

    V(r) = D (1 - e)^2,  e = exp(-a (r - r0));      V' = 2 D a (e - e^2),      V'' = 2 D a^2 (2 e^2 - e)

One kernel computes V, one the cotangent g V'(r): one pass over memory each, where array functions would take six. The
second is an operation too, whose own rule is written in gpugrad functions: fast at first order, right at every order.
Where there is no GPU the NumPy twins of the kernels run.
"""

import functools

import numpy as np

import gpugrad as gg

SOURCE = r"""
// Elementwise over n elements of contiguous arrays. A grid-stride loop, so that any grid covers them.
#define FOR_EACH(i, n) for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)

extern "C" __global__ void morse(const real* __restrict__ r, real* __restrict__ v, real depth, real width, real rest, long long n) {
    FOR_EACH(i, n) {
        real d = 1 - exp(-width * (r[i] - rest));
        v[i] = depth * d * d;
    }
}

extern "C" __global__ void morse_pullback(const real* __restrict__ g, const real* __restrict__ r, real* __restrict__ dr, real depth, real width, real rest, long long n) {
    FOR_EACH(i, n) {
        real e = exp(-width * (r[i] - rest));
        dr[i] = g[i] * (2 * depth * width * e * (1 - e));
    }
}
"""
BLOCK = 256


def source(dtype):
    """The CUDA code for float32 or float64."""
    return f"using real = {'float' if np.dtype(dtype) == np.float32 else 'double'};\n{SOURCE}"


@functools.cache
def kernel(name, dtype):
    import cupy

    return cupy.RawKernel(source(dtype), name)


def launch(name, arrays, constants):
    """Run a kernel on CuPy arrays. A raw kernel sees addresses only, no strides: hence the contiguous arrays."""
    import cupy

    arrays = [cupy.ascontiguousarray(a) for a in arrays]
    out = cupy.empty_like(arrays[0])
    if out.size:
        blocks = min(-(-out.size // BLOCK), 4096)
        kernel(name, out.dtype)((blocks,), (BLOCK,), (*arrays, out, *map(out.dtype.type, constants), np.int64(out.size)))
    return out


@gg.primitive
def morse(r, *, depth, width, rest):
    if not isinstance(r, np.ndarray):
        return launch("morse", [r], (depth, width, rest))
    return depth * (1 - np.exp(-width * (r - rest))) ** 2


@gg.primitive
def morse_pullback(g, r, *, depth, width, rest):
    if not isinstance(r, np.ndarray):
        return launch("morse_pullback", [g, r], (depth, width, rest))
    e = np.exp(-width * (r - rest))
    return g * (2 * depth * width * e * (1 - e))


def curvature(r, depth, width, rest):
    """V''(r), in gpugrad functions."""
    e = gg.exp(-width * (r - rest))
    return 2 * depth * width**2 * (2 * e - 1) * e


# the derivative is diagonal, so the same kernel takes cotangents back and tangents forward
gg.defvjp(morse, lambda g, _y, r, **p: morse_pullback(g, r, **p))
gg.defjvp(morse, lambda t, _y, r, **p: morse_pullback(t, r, **p))
gg.defvjp(morse_pullback, lambda c, _y, _g, r, **p: morse_pullback(c, r, **p), lambda c, _y, g, r, **p: c * g * curvature(r, **p))


def main():
    device = "cuda" if gg.cuda.is_available() else "cpu"
    if device == "cpu":
        print("no GPU here: the NumPy twins of the kernels run")
    hydrogen = {"depth": 4.75, "width": 1.94, "rest": 0.741}  # eV, 1/angstrom, angstrom
    energy = lambda r: gg.sum(morse(r, **hydrogen))

    r = gg.tensor(np.array([0.5, 0.741, 1.0, 2.0]), device=device, requires_grad=True)
    energy(r).backward()
    force = -r.grad.numpy()
    stiffness = gg.hvp(energy, r.detach(), gg.ones(4, device=device)).numpy()  # the Hessian is diagonal
    potential = morse(r.detach(), **hydrogen).numpy()
    for row in zip(r.numpy(), potential, force, stiffness):
        print("r = {:.3f}: energy {:7.4f}, force {:8.4f}, stiffness {:9.4f}".format(*row))
    return {"device": device, "r": r.numpy(), "energy": potential, "force": force, "stiffness": stiffness}


if __name__ == "__main__":
    main()
