"""What an optimizer's state dict holds, and going on from one: bit for bit, through JSON, on other devices and in other dtypes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn, optim
from gpugrad.optim.optimizer import remembered

MAKERS: dict[str, Callable[..., Any]] = {
    "SGD": lambda ps, **o: optim.SGD(ps, momentum=0.9, **o),
    "Adam": lambda ps, **o: optim.Adam(ps, amsgrad=True, **o),
    "AdamW": optim.AdamW,
    "capturable Adam": lambda ps, **o: optim.Adam(ps, capturable=True, **o),
    "NAdam": optim.NAdam,
    "capturable NAdam": lambda ps, **o: optim.NAdam(ps, capturable=True, **o),
    "RMSprop": lambda ps, **o: optim.RMSprop(ps, momentum=0.9, centered=True, **o),
    "Adagrad": lambda ps, **o: optim.Adagrad(ps, lr_decay=0.1, **o),
    "Adadelta": lambda ps, **o: optim.Adadelta(ps, capturable=True, **o),
    "Lion": optim.Lion,
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
SHAPES = [(), (3, 4), (0,), (40, 60)]
RNG = np.random.default_rng(0)
STARTS, GRADS = [RNG.normal(size=s).astype(np.float32) for s in SHAPES], [[RNG.normal(size=s).astype(np.float32) for s in SHAPES] for _ in range(6)]


def parameters(device: str = "cpu", dtype: Any = np.float32) -> list[gg.Tensor]:
    return [gg.tensor(a, dtype=dtype, requires_grad=True, device=device) for a in STARTS]


def stepped(optimizer: Any, grads: list[list[Any]]) -> None:
    """The second parameter is left out of the second of all steps."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for gs in grads:
        for i, (p, g) in enumerate(zip(params, gs)):
            p.grad = None if gs is GRADS[1] and i == 1 else gg.tensor(g, dtype=p.dtype, device=p.device)
        optimizer.step()


def through_files(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint does it: Tensors to arrays of their own, in order; everything else to JSON, which refuses what is not JSON's."""
    tensors: list[Any] = []

    def out(x: Any) -> Any:
        if isinstance(x, gg.Tensor):
            tensors.append(x.numpy().copy())
            return {"tensor": len(tensors) - 1}
        if isinstance(x, dict):
            return {k: out(v) for k, v in x.items()}
        return [out(v) for v in x] if isinstance(x, (list, tuple)) else x

    def back(x: Any) -> Any:
        if isinstance(x, dict):
            return gg.tensor(tensors[x["tensor"]]) if set(x) == {"tensor"} else {k: back(v) for k, v in x.items()}
        return [back(v) for v in x] if isinstance(x, list) else x

    return back(json.loads(json.dumps(out(state), allow_nan=False)))


@every_maker
@pytest.mark.parametrize("files", [False, True], ids=["directly", "through files"])
def test_going_on_is_going_on_bit_for_bit(make: Any, files: bool, device: str) -> None:
    whole, first = (make([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.03}], lr=0.1) for ps in (parameters(device), parameters(device)))
    stepped(whole, GRADS)
    stepped(first, GRADS[:3])
    saved = first.state_dict()
    params = parameters(device)
    for p, q in zip(params, [p for group in first.param_groups for p in group["params"]]):
        p.data = q.data.copy()
    second = make([{"params": params[:1]}, {"params": params[1:]}], lr=5.0)
    second.load_state_dict(through_files(saved) if files else saved)
    stepped(second, GRADS[3:])
    for group, other in zip(whole.param_groups, second.param_groups, strict=True):
        assert {k: v for k, v in group.items() if k != "params"} == {k: v for k, v in other.items() if k != "params"}
        assert all(type(v) is type(other[k]) for k, v in group.items())
        for p, q in zip(group["params"], other["params"], strict=True):
            assert p.numpy().tobytes() == q.numpy().tobytes()
            assert whole.state[p].keys() == second.state[q].keys()
            for a, b in zip(whole.state[p].values(), second.state[q].values()):
                assert type(a) is type(b)
                assert_array_equal(gg.tensor(a).numpy(), gg.tensor(b).numpy())


@every_maker
def test_a_state_dict_holds_tensors_and_what_json_has(make: Any, device: str) -> None:
    """Numbers of NumPy become Python's, an array in the options a Tensor; numbers are those of Python exactly."""
    lr = gg.tensor(np.array(0.1), device=device)
    optimizer = make([{"params": parameters(device), "weight_decay": np.float32(0.5)}], lr=lr.data)
    optimizer.param_groups[0]["initial_lr"] = np.float64(0.1)
    stepped(optimizer, GRADS[:2])

    def leaves(x: Any) -> list[Any]:
        if type(x) is dict:
            return [y for k, v in x.items() for y in [k, *leaves(v)]]
        return [y for v in x for y in leaves(v)] if type(x) in (list, tuple) else [x]

    state = optimizer.state_dict()
    assert {type(x) for x in leaves(state)} <= {gg.Tensor, int, float, bool, str, type(None)}
    assert state["param_groups"][0]["weight_decay"] == 0.5
    assert isinstance(state["param_groups"][0]["lr"], gg.Tensor)
    assert state["state"][1] and isinstance(next(iter(state["state"][1].values())), (int, gg.Tensor))


def test_what_a_state_dict_cannot_hold_is_named() -> None:
    p = parameters()[0]
    optimizer = optim.Adam([p])
    optimizer.param_groups[0]["schedule"] = print
    with pytest.raises(TypeError, match="schedule is a builtin_function_or_method, which a state dict cannot hold"):
        optimizer.state_dict()


def test_an_optimizer_of_ones_own() -> None:
    """Numbers, strings and nests of them are remembered too."""

    class Counting(optim.Optimizer):
        def update(self, params: Any, grads: Any, states: Any, group: Any) -> None:
            for a, s in zip(remembered(states, "sum", params, 1.0), states):
                a += 1
                s["seen"] = {"names": ["a", "b"], "scale": (1, 2.5)}

    p = parameters()[1]
    p.grad = gg.tensor(STARTS[1])
    optimizer = Counting([p], {})
    optimizer.step()
    again = Counting([p], {})
    again.load_state_dict(through_files(optimizer.state_dict()))
    assert again.state[p]["seen"] == {"names": ["a", "b"], "scale": [1, 2.5]}
    assert_array_equal(again.state[p]["sum"], np.full((3, 4), 2, np.float32))


@every_maker
def test_options_that_make_no_sense_are_refused_and_nothing_changes(make: Any) -> None:
    optimizer = make(parameters(), lr=0.1)
    stepped(optimizer, GRADS[:1])
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = -1.0
    other = make(parameters(), lr=0.2)
    with pytest.raises(ValueError, match="invalid lr: got -1"):
        other.load_state_dict(saved)
    assert not other.state
    assert other.param_groups[0]["lr"] == 0.2


@every_maker
def test_loaded_arrays_are_the_optimizers_own(make: Any) -> None:
    optimizer = make(parameters(), lr=gg.tensor(0.1))
    stepped(optimizer, GRADS[:1])
    saved = optimizer.state_dict()
    kept = [a.numpy().copy() for s in saved["state"].values() for a in s.values() if isinstance(a, gg.Tensor)]
    params = parameters()
    other = make(params, lr=1.0)
    other.load_state_dict(saved)
    stepped(other, GRADS[:2])
    other.param_groups[0]["lr"].data[...] = 7.0
    for a, b in zip([a for s in saved["state"].values() for a in s.values() if isinstance(a, gg.Tensor)], kept):
        assert_array_equal(a.numpy(), b)
    assert optimizer.param_groups[0]["lr"].item() == pytest.approx(0.1)


# ------------------------------------------------------------------------------------------------- parameters that move


@every_maker
def test_a_state_is_loaded_in_another_dtype(make: Any) -> None:
    """Saved in float32, gone on with in float64: what is remembered is of the parameter's dtype."""
    optimizer = make(parameters(), lr=0.1)
    stepped(optimizer, GRADS[:3])
    params = parameters(dtype=np.float64)
    for p, q in zip(params, optimizer.param_groups[0]["params"]):
        p.data = q.data.astype(np.float64)
    other = make(params, lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    for o in (optimizer, other):
        stepped(o, GRADS[3:])
    for p, q in zip(params, optimizer.param_groups[0]["params"]):
        assert p.dtype == np.float64
        assert all(a.dtype == np.float64 for k, a in other.state[p].items() if isinstance(a, np.ndarray))
        assert_allclose(p.numpy(), q.numpy(), rtol=1e-4, atol=1e-5)


@every_maker
def test_a_state_saved_on_a_gpu_is_loaded_on_the_cpu_and_back(make: Any, fake_cupy: Any) -> None:
    """The learning rate too, if it lies in device memory."""
    results = []
    for places in (("cpu", "cpu"), ("cuda", "cpu"), ("cpu", "cuda")):
        optimizer = make(parameters(places[0]), lr=gg.tensor(np.array(0.1), device=places[0]))
        stepped(optimizer, GRADS[:3])
        params = parameters(places[1])
        for p, q in zip(params, optimizer.param_groups[0]["params"]):
            p.data = gg.tensor(q.numpy(), device=places[1]).data
        other = make(params, lr=1.0)
        other.load_state_dict(optimizer.state_dict())
        lr = other.param_groups[0]["lr"]
        assert lr.device == params[0].device
        stepped(other, GRADS[3:])
        results.append([p.numpy() for p in params])
    for got in results[1:]:
        for a, b in zip(got, results[0]):
            assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_model_that_moves_after_its_first_step(fake_cupy: Any) -> None:
    """PyTorch's old trap: the state stays behind. It is said what to do, and doing it helps."""
    for where, error in ((np.float64, TypeError), ("cuda", gg.backend.DeviceError)):
        model = nn.MLP([3, 4, 1], "tanh")
        optimizer = optim.Adam(model.parameters(), lr=0.1, capturable=True)
        x = np.ones((2, 3), np.float32)

        def backward(model: Any = model, x: Any = x) -> None:
            p = next(iter(model.parameters()))
            gg.sum(model(gg.tensor(x, dtype=p.dtype, device=p.device)) ** 2).backward()

        backward()
        optimizer.step()
        optimizer.zero_grad()
        model.to(where)
        backward()
        before = [p.numpy().copy() for p in model.parameters()]
        with pytest.raises(error, match=r"after model.to\(...\), call optimizer.load_state_dict\(optimizer.state_dict\(\)\)"):
            optimizer.step()
        assert all(np.array_equal(p.numpy(), b) for p, b in zip(model.parameters(), before))
        assert {float(state["step"]) for state in optimizer.state.values()} == {1}
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
        assert not any(np.array_equal(p.numpy(), b) for p, b in zip(model.parameters(), before))


def test_a_complex_state_as_pytorch_has_it() -> None:
    """Complex where ours is pairs."""
    p, q = (gg.tensor(np.array([1 + 2j, 3 - 1j]), requires_grad=True) for _ in range(2))
    p.grad = q.grad = gg.tensor(np.array([1 - 1j, 2 + 1j]))
    o = optim.Adam([p], lr=0.1)
    o.step()
    saved = o.state_dict()
    for name in ("exp_avg", "exp_avg_sq"):
        saved["state"][0][name] = gg.tensor(saved["state"][0][name].numpy().view(complex)[..., 0])
    q.data = p.data.copy()
    other = optim.Adam([q], lr=0.1)
    other.load_state_dict(saved)
    for one in (o, other):
        one.step()
    assert_array_equal(p.numpy(), q.numpy())
