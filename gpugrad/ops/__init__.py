"""The operations. Each is one paragraph: value, vjp, jvp and the samples on which the tests check it (see rules.py).

Imports run downward: rules <- fit <- elementwise <- shape <- index <- reduce <- linalg <- einsum; activations, erf, loss beside them.
"""
