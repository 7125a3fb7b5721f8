"""Write down what the installed CuPy offers (cupy14.json): ``python tests/fakecupy/describe.py``. No GPU is needed.

Only names that NumPy has too are listed, for those are what a program for both may use.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).with_name("cupy14.json")


def signature(f: Any) -> str | None:
    """The parameters as ``a axis= *rest``, or None where CuPy's C code does not tell."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return None
    words = []
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not any(w.startswith("*") for w in words):
            words.append("*")
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        words.append(star + p.name + ("" if p.default is p.empty else "="))
    return " ".join(words)


def embedded_signature(method: Any) -> str | None:
    """That of a method, from the first line of its docstring, where Cython leaves it."""
    found = re.match(r"\w+\.\w+\(self(?:, )?(.*?)\)(?: ->|$)", (method.__doc__ or "").split("\n")[0])
    if found is None:
        return None
    words = [w.strip() for w in found[1].split(",") if w.strip()]
    return " ".join(w.split(" ")[-1].partition("=")[0] + ("=" if "=" in w else "") for w in words)


def functions(module: Any, numpys: Any, ufunc: type) -> dict[str, str | None]:
    """The functions of a module of CuPy's, with their signatures."""
    names = [n for n in dir(module) if not n.startswith("_") and callable(getattr(module, n)) and hasattr(numpys, n)]
    return {n: signature(getattr(module, n)) for n in names if not isinstance(getattr(module, n), (type, ufunc))}


def describe() -> dict[str, Any]:
    """All of it."""
    import cupy
    import cupyx.scipy.special
    from cupy._sorting.search import _where_ufunc

    kernels = {n: u for n, u in vars(cupy).items() if isinstance(u, cupy.ufunc) and hasattr(np, n)} | {"where": _where_ufunc}
    methods = {n: embedded_signature(getattr(cupy.ndarray, n)) for n in dir(cupy.ndarray) if not n.startswith("_") and callable(getattr(cupy.ndarray, n))}
    special = cupyx.scipy.special
    return {
        "version": cupy.__version__,
        "ufuncs": {n: [u.name, " ".join(u.types), u._scatter_op or ""] for n, u in sorted(kernels.items())},
        "functions": functions(cupy, np, cupy.ufunc),
        "linalg": functions(cupy.linalg, np.linalg, cupy.ufunc),
        "fft": functions(cupy.fft, np.fft, cupy.ufunc),
        "methods": methods,
        "special": [n for n in dir(special) if not n.startswith("_") and isinstance(getattr(special, n), cupy.ufunc)],
        "constants": [
            n for n in dir(cupy) if not n.startswith("_") and hasattr(np, n) and (getattr(cupy, n) is getattr(np, n) or isinstance(getattr(cupy, n), float))
        ],
    }


def as_text(table: dict[str, Any]) -> str:
    """JSON with a line for each name."""
    sections = []
    for key, value in table.items():
        lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(value.items())) if isinstance(value, dict) else json.dumps(value)
        sections.append(f"{json.dumps(key)}: " + (f"{{\n{lines}\n}}" if isinstance(value, dict) else lines))
    return "{\n" + ",\n".join(sections) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(as_text(describe()))
