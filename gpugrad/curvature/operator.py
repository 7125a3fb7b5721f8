"""Linear operators on vectors of parameters: what all of them can do, their algebra, and their faces."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import backend, tree
from gpugrad.curvature.vectors import Form, Space
from gpugrad.ops.batch import with_axis
from gpugrad.ops.fit import shape_of
from gpugrad.ops.shape import reshape, stack
from gpugrad.tape import Op, Tensor, is_tracked


class Operator:
    """A matrix that is known by its products: ``A @ v``.

    ``v`` is flat (N,), the columns of (N, K), or a nest like the parameters, whose leaves may have an axis of K vectors in front; the product comes in the same
    form, of the same kind of array (NumPy, CuPy or Tensor), in the operator's dtype. Products are linear in v, and tracked through it.

    Operators make up new ones: ``2 * A``, ``-A``, ``A + B``, ``A - B``, ``A.damped(c)`` (which is ``A + c * A.identity()``), ``A.block("0.weight")``,
    ``A.inverse()``, ``A.T``. They stand for the same matrix for as long as they live.

    A subclass defines ``_product`` on the parts of one vector, and where it can do better than one after the other, ``_block`` on those of several.
    """

    __array_ufunc__ = None  # so that array @ operator asks the operator
    __array_priority__ = 1000.0

    def __init__(self, range: Space, domain: Space | None = None) -> None:
        self.range, self.domain = range, range if domain is None else domain

    def _product(self, vs: list[Any]) -> list[Any]:
        raise NotImplementedError(f"{type(self).__name__} does not define _product(vs), the product with one vector, given and returned by its parts")

    def _block(self, vs: list[Any]) -> list[Any]:
        """The products with several vectors: each part has an axis of them in front."""
        products = [self._product([v[k] for v in vs]) for k in range(shape_of(vs[0])[0])]
        return [stack(parts) for parts in zip(*products, strict=True)]

    def _transposed(self) -> Operator:
        return self

    # ------------------------------------------------------------------ what it looks like

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N), where N counts the numbers in the parameters."""
        return self.range.size, self.domain.size

    @property
    def dtype(self) -> Any:
        """That of the parameters."""
        return self.range.dtype

    @property
    def device(self) -> str:
        """Where the parameters are: "cpu" or "cuda:N"."""
        return self.range.device

    @property
    def T(self) -> Operator:  # noqa: N802
        """The transpose: of a symmetric operator, itself."""
        return self._transposed()

    @property
    def H(self) -> Operator:  # noqa: N802
        """The adjoint, which of a real operator is the transpose."""
        return self._transposed()

    def adjoint(self) -> Operator:
        """:attr:`H`, under SciPy's other name for it."""
        return self._transposed()

    def __repr__(self) -> str:
        return f"{type(self).__name__} of shape {self.shape}, {self.dtype} on {self.device}"

    # ------------------------------------------------------------------ products

    def __matmul__(self, v: Any) -> Any:
        if isinstance(v, Operator):
            raise TypeError("operator @ operator: the product of two operators is none of these; apply one after the other, A @ (B @ v)")
        return self._apply(v, "the vector")

    def __rmatmul__(self, v: Any) -> Any:
        return self.T._apply(v.T if len(shape_of(v)) == 2 else v, "the vector").T if hasattr(v, "T") else self.T._apply(v, "the vector")

    def matvec(self, v: Any) -> Any:
        """``A @ v`` of one vector: flat (N,) or (N, 1), or a nest."""
        return self._one(v)

    def rmatvec(self, v: Any) -> Any:
        """``A.T @ v`` of one vector."""
        return self.T._one(v)

    def matmat(self, V: Any) -> Any:
        """``A @ V`` of K vectors: the columns of (N, K), or a nest with K in front."""
        return self._several(V)

    def rmatmat(self, V: Any) -> Any:
        """``A.T @ V`` of K vectors."""
        return self.T._several(V)

    def _one(self, v: Any) -> Any:
        vs, form = self.domain.read(v)
        if form.number not in (None, 1):
            raise ValueError(f"matvec: got {form.number} vectors, expected one: use matmat, or A @ V")
        return self._write(vs, form)

    def _several(self, V: Any) -> Any:
        vs, form = self.domain.read(V, "the vectors")
        if form.number is None:
            raise ValueError("matmat: got one vector without an axis for several, expected the columns of (N, K): use matvec, or A @ v")
        return self._write(vs, form)

    def _apply(self, v: Any, what: str) -> Any:
        return self._write(*self.domain.read(v, what))

    def _write(self, vs: list[Any], form: Form) -> Any:
        tracked = any(map(is_tracked, vs))
        return self.range.write(as_operation(self)(*vs, number=form.number) if tracked else self._products(vs, form.number), form)

    def _products(self, vs: Sequence[Any], number: int | None) -> list[Any]:
        """Of plain parts: one vector, or ``number`` of them along an axis in front."""
        if number is None:
            return self._product(list(vs))
        if number == 0:
            return [self.range.zeros(i, 0) for i in range(len(self.range.names))]
        if number == 1:
            return [x[None] for x in self._product([v[0] for v in vs])]
        return self._block(list(vs))

    def to_dense(self) -> Any:
        """The matrix, as an array (N, N) on the operator's device: N products."""
        xp, current = backend.on(self.device)
        with current:
            return self @ xp.eye(self.domain.size, dtype=self.domain.dtype)

    # ------------------------------------------------------------------ algebra

    def identity(self) -> Operator:
        """The identity on the same vectors, so that ``A + c * A.identity()`` can be written."""
        return Combination([], 1.0, self._square("identity()"))

    def damped(self, c: float) -> Operator:
        """``A + c I``, c one number."""
        return self + self.identity() * c

    def __mul__(self, c: Any) -> Operator:
        if not isinstance(c, numbers.Real) and (type(c) is Tensor or shape_of(c) != ()):
            raise TypeError(f"operator times {type(c).__name__}: expected one number; the product with vectors is A @ v")
        return Combination([(float(c), self)], 0.0, self.range, self.domain)

    __rmul__ = __mul__

    def __truediv__(self, c: Any) -> Operator:
        return self * (1 / c)

    def __neg__(self) -> Operator:
        return self * -1.0

    def __add__(self, other: Any) -> Operator:
        if not isinstance(other, Operator):
            raise TypeError(f"operator + {type(other).__name__}: expected an operator; A + c would add to every element: write A.damped(c) for A + c I")
        if not (self.range.fits(other.range) and self.domain.fits(other.domain)):
            raise ValueError(f"operators of shapes {self.shape} and {other.shape} are not of the same parameters, so there is no sum")
        (terms, shift), (more, more_shift) = _terms(self), _terms(other)
        return Combination([*terms, *more], shift + more_shift, self.range, self.domain)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Operator:
        return self + (-other if isinstance(other, Operator) else other)

    def __rsub__(self, other: Any) -> Operator:
        return -self + other

    def _square(self, what: str) -> Space:
        if not self.range.fits(self.domain):
            raise ValueError(f"{what} needs a square operator, got {self!r}")
        return self.range

    def block(self, rows: Any, columns: Any = None) -> Operator:
        """The part of the matrix that belongs to some parameters: ``A.block("0.weight")``, or ``A.block("0.weight", "2.bias")`` off the diagonal.

        Args:
            rows, columns: a parameter, by name (see ``A.domain.names``) or number; what holds several, by the beginning of their names, as in ``A.block("0")`` of a
                layer; or a list of these. In nests the vectors of one parameter's block are an array, those of others a list of arrays.

        Raises:
            KeyError: there is no such parameter.
        """
        of_rows, row_nest = _chosen(self.range, rows)
        of_columns, column_nest = (of_rows, row_nest) if columns is None else _chosen(self.domain, columns)
        return self._part(of_rows, row_nest, of_columns, column_nest)

    def _part(self, rows: list[int], row_nest: Any, columns: list[int], column_nest: Any) -> Operator:
        return Block(self, rows, row_nest, columns, column_nest)

    def inverse(self, method: str = "cg", *, tol: float = 1e-6, maxiter: int | None = None, preconditioner: Any = None) -> Operator:
        """The inverse, whose products solve ``A x = v``; see :class:`gpugrad.curvature.inverse.Inverse`."""
        from gpugrad.curvature.inverse import Inverse

        return Inverse(self, method, tol=tol, maxiter=maxiter, preconditioner=preconditioner)

    # ------------------------------------------------------------------ faces

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(f"{self!r} is no array: A.to_dense() makes one, of N^2 numbers; A.to_scipy() goes where SciPy takes a LinearOperator")

    def to_scipy(self, dtype: Any = None) -> Any:
        """A :class:`scipy.sparse.linalg.LinearOperator`, for eigsh, cg, minres, lobpcg, svds. See :func:`gpugrad.curvature.faces.to_scipy`."""
        from gpugrad.curvature.faces import to_scipy

        return to_scipy(self, dtype)

    def to_cupyx(self) -> Any:
        """A ``cupyx.scipy.sparse.linalg.LinearOperator``, for its eigsh, cg, minres; vectors stay on the GPU. See :func:`gpugrad.curvature.faces.to_cupyx`."""
        from gpugrad.curvature.faces import to_cupyx

        return to_cupyx(self)


class Combination(Operator):
    """``sum_i c_i A_i + shift I``."""

    def __init__(self, terms: Sequence[tuple[float, Operator]], shift: float, range: Space, domain: Space | None = None) -> None:
        super().__init__(range, domain)
        self.terms, self.shift = [(c * d, B) for c, A in terms for d, B in _terms(A)[0]], shift + sum(c * _terms(A)[1] for c, A in terms)

    def _product(self, vs: list[Any]) -> list[Any]:
        return self._sum(vs, [A._product(vs) for _, A in self.terms])

    def _block(self, vs: list[Any]) -> list[Any]:
        return self._sum(vs, [A._block(vs) for _, A in self.terms])

    def _sum(self, vs: list[Any], products: list[list[Any]]) -> list[Any]:
        factors = [c for c, _ in self.terms]
        if self.shift or not products:
            factors, products = [*factors, self.shift], [*products, vs]
        scaled = [[x if c == 1 and p is not vs else x * c for x in p] for c, p in zip(factors, products, strict=True)]
        return [sum(parts[1:], parts[0]) for parts in zip(*scaled, strict=True)]

    def _transposed(self) -> Operator:
        return Combination([(c, A.T) for c, A in self.terms], self.shift, self.domain, self.range)

    def _part(self, rows: list[int], row_nest: Any, columns: list[int], column_nest: Any) -> Operator:
        if self.shift and rows != columns and set(rows) & set(columns):
            return Block(self, rows, row_nest, columns, column_nest)
        range_, domain = self.range.part(rows, row_nest), self.domain.part(columns, column_nest)
        terms = [(c, A._part(rows, row_nest, columns, column_nest)) for c, A in self.terms]
        return (
            Combination(terms, self.shift if rows == columns else 0.0, range_, domain)
            if terms or rows == columns
            else Block(self, rows, row_nest, columns, column_nest)
        )


class Block(Operator):
    """The rows and columns of an operator that belong to some of the parameters."""

    def __init__(self, whole: Operator, rows: list[int], row_nest: Any, columns: list[int], column_nest: Any) -> None:
        super().__init__(whole.range.part(rows, row_nest), whole.domain.part(columns, column_nest))
        self.whole, self.rows, self.columns = whole, rows, columns

    def _product(self, vs: list[Any]) -> list[Any]:
        product = self.whole._product(self._filled(vs, None))
        return [product[i] for i in self.rows]

    def _block(self, vs: list[Any]) -> list[Any]:
        products = self.whole._block(self._filled(vs, shape_of(vs[0])[0]))
        return [products[i] for i in self.rows]

    def _filled(self, vs: list[Any], count: int | None) -> list[Any]:
        """With zeros for the other columns."""
        given = dict(zip(self.columns, vs, strict=True))
        return [given[i] if i in given else self.whole.domain.zeros(i, count) for i in range(len(self.whole.domain.names))]

    def _transposed(self) -> Operator:
        return Block(self.whole.T, self.columns, self.domain.structure, self.rows, self.range.structure)


def as_operation(A: Operator) -> Op:
    """The product as an operation of the tape, which is linear: its transpose is that of the operator."""

    def given(parts: Sequence[Any], space: Space, number: int | None) -> list[Any]:
        return [space.zeros(i, number) if x is None else x for i, x in enumerate(parts)]

    def pull_back(_needs: Any, g: Sequence[Any], _y: Any, *_vs: Any, number: int | None) -> list[Any]:
        return list(as_operation(A.T)(*given(g, A.range, number), number=number))

    def push_forward(tangents: Sequence[Any], _y: Any, *_vs: Any, number: int | None) -> list[Any]:
        return list(as_operation(A)(*given(tangents, A.domain, number), number=number))

    def batch(op: Op, size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> tuple[Any, ...]:
        vs, number = with_axis(size, batched, args), params["number"]
        if number is None:
            return op(*vs, number=size)
        ys = op(*[reshape(v, (size * number, *shape_of(v)[2:])) for v in vs], number=size * number)
        return tuple(reshape(y, (size, number, *shape_of(y)[1:])) for y in ys)

    return Op(f"{type(A).__name__} @", lambda *vs, number: tuple(A._products(vs, number)), pull_back, push_forward, batch=batch)


def _terms(A: Operator) -> tuple[Sequence[tuple[float, Operator]], float]:
    return (A.terms, A.shift) if isinstance(A, Combination) else ([(1.0, A)], 0.0)


def _chosen(space: Space, keys: Any) -> tuple[list[int], Any]:
    """Which parts, and the nest of their vectors."""
    of_keys = [_indices(space, key) for key in (keys if isinstance(keys, (list, tuple)) else [keys])]
    several = isinstance(keys, (list, tuple)) or not (isinstance(keys, numbers.Integral) or keys in space.names)
    found = [i for indices in of_keys for i in indices]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"block: got {keys!r}, expected at least one parameter, and none twice")
    return found, [tree.LEAF] * len(found) if several else tree.LEAF


def _indices(space: Space, key: Any) -> list[int]:
    if isinstance(key, (int, np.integer)) and -len(space.names) <= key < len(space.names):
        return [int(key) % len(space.names)]
    if key in space.names:
        return [space.names.index(key)]
    below = [i for i, name in enumerate(space.names) if name.startswith((f"{key}.", f"{key}["))]
    if not below:
        raise KeyError(f"there is no parameter {key}: expected one of {', '.join(space.names)}, or the beginning of such names")
    return below
