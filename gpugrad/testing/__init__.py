"""Tools to test derivatives with: against finite differences, against each other, and device against device. Needs no test runner."""

from gpugrad.testing.devices import assert_devices_agree, available_devices, tolerance
from gpugrad.testing.gradients import check_grads
from gpugrad.testing.jacobians import GradcheckError, gradcheck, gradgradcheck

__all__ = ["GradcheckError", "assert_devices_agree", "available_devices", "check_grads", "gradcheck", "gradgradcheck", "tolerance"]
