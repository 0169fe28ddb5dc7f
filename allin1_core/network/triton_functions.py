"""Functions of single values for the Triton kernels of the network."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gelu(x, EXACT: tl.constexpr):
    """x Phi(x) = max(x, 0) - a Phi(-a) with a = |x|; log2 Phi(-a) by polynomials that fall to minus infinity with a.

    Fitted to 4e-8 of a Phi(-a) with degree 8, to 5e-7 with degree 5.
    """
    a = tl.abs(x)
    if EXACT:
        p = a * -1.690439262347354e-6 + 2.508372017473448e-5
        p = p * a + -1.144644629675895e-4
        p = p * a + -3.233382885809988e-4
        p = p * a + 7.333379704505205e-3
        p = p * a + -5.271410450339317e-2
        p = p * a + -4.591154456138611e-1
        p = p * a + -1.151123285293579
        p = p * a + -0.9999988675117493
    else:
        p = a * -4.733091627713293e-4 + 7.084555458277464e-3
        p = p * a + -5.182737484574318e-2
        p = p * a + -4.599924385547638e-1
        p = p * a + -1.1507878303527832
        p = p * a + -1.000037670135498
    return tl.maximum(x, 0.0) - a * tl.exp2(p)


@triton.jit
def elu(x):
    """x where x > 0, else e^x - 1."""
    return tl.where(x > 0.0, x, tl.exp2(x * 1.4426950408889634) - 1.0)


@triton.jit
def larger(x, y):
    """Their maximum, NaN if either is: what is no number must not vanish on the way."""
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)
