"""gpugrad: derivatives for NumPy and CuPy arrays.

>>> import numpy as np, gpugrad as gg
>>> gg.grad(lambda x: gg.sum(gg.sin(x) ** 2))(np.zeros(3))
array([0., 0., 0.])

Function transforms: ``grad value_and_grad vjp jvp linearize jacobian hessian hvp vmap``. PyTorch-shaped tape: ``gg.tensor(...,
requires_grad=True)``, ``.backward()``, ``gg.autograd.grad``. NumPy's names: ``gg.exp``, ``gg.sum``, ``gg.linalg.norm`` ...,
for Tensors and plain arrays of either library.
"""

from __future__ import annotations

import difflib as _difflib
import importlib as _importlib
from typing import Any as _Any

from numpy import bool_, complex64, complex128, e, euler_gamma, float16, float32, float64, inf, int8, int16, int32, int64, nan, newaxis, pi, uint8  # noqa: F401

from gpugrad import interop as _interop  # noqa: F401  attaches NumPy's and CuPy's protocols to Tensor
from gpugrad import methods as _methods  # noqa: F401  attaches the methods to Tensor
from gpugrad.autograd import (  # noqa: F401
    Function,
    detect_anomaly,
    enable_grad,
    is_grad_enabled,
    no_grad,
    once_differentiable,
    set_grad_enabled,
)
from gpugrad.backend import DeviceError  # noqa: F401
from gpugrad.batching import vmap  # noqa: F401
from gpugrad.blas import get_matmul_precision, set_matmul_precision  # noqa: F401
from gpugrad.creation import (  # noqa: F401
    arange,
    array,
    asarray,
    empty,
    eye,
    from_dlpack,
    full,
    geomspace,
    get_default_dtype,
    identity,
    linspace,
    logspace,
    ones,
    set_default_dtype,
    tensor,
    tri,
    zeros,
)
from gpugrad.function import defbatch, defjvp, defvjp, primitive  # noqa: F401
from gpugrad.jacobians import hessian, jacobian  # noqa: F401
from gpugrad.ops.activations import *  # noqa: F403
from gpugrad.ops.einsum import *  # noqa: F403
from gpugrad.ops.elementwise import *  # noqa: F403
from gpugrad.ops.erf import *  # noqa: F403
from gpugrad.ops.fit import *  # noqa: F403
from gpugrad.ops.index import *  # noqa: F403
from gpugrad.ops.linalg import *  # noqa: F403
from gpugrad.ops.reduce import *  # noqa: F403
from gpugrad.ops.selection import *  # noqa: F403
from gpugrad.ops.shape import *  # noqa: F403
from gpugrad.ops.softmax import *  # noqa: F403
from gpugrad.products import block_hvp, hvp, value_grad_hvp, vhp  # noqa: F401
from gpugrad.tape import Tensor  # noqa: F401
from gpugrad.transforms import grad, jvp, linearize, stop_gradient, value_and_grad, vjp  # noqa: F401

__version__ = "0.1.0"

_SUBMODULES = (
    "amp",
    "autograd",
    "backend",
    "cuda",
    "curvature",
    "data",
    "io",
    "kernels",
    "linalg",
    "nn",
    "optim",
    "random",
    "special",
    "testing",
    "training",
    "tree",
    "viz",
)

_INSTEAD = {  # names of other libraries, of which a similar one would be a wrong guess
    "bfloat16": "import ml_dtypes (pip install 'gpugrad[bfloat16]') and write ml_dtypes.bfloat16, or dtype=\"bfloat16\"",
    "clamp": "write gg.clip",
    "manual_seed": "write gg.random.seed",
    "one_hot": "write gg.nn.functional.one_hot",
}


def __getattr__(name: str) -> _Any:
    if name in _SUBMODULES:
        return _importlib.import_module(f"gpugrad.{name}")
    raise AttributeError(f"module 'gpugrad' has no attribute {name!r}: {_INSTEAD.get(name) or _hint(name)}")


def _hint(name: str) -> str:
    close = _difflib.get_close_matches(name, [n for n in globals() if not n.startswith("_")], 1)
    return f"did you mean gg.{close[0]}?" if close else "write it with the functions gg has, or give your own function rules with gg.primitive and gg.defvjp."


def __dir__() -> list[str]:
    return sorted({n for n in globals() if not n.startswith("_")} | set(_SUBMODULES))
