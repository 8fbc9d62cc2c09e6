"""The one-sided normal mixture: an e-process for a mean, and the interval derived from it.

S is a sum with variance V, under the hypothesis that its drift is at most 0. Source: Howard, Ramdas, McAuliffe, Sekhon:
Time-uniform, nonparametric, nonasymptotic confidence sequences, 2021.
"""

import math
from functools import lru_cache

_LOG_2 = math.log(2)
_SQRT_2, _SQRT_2_PI = math.sqrt(2), math.sqrt(2 * math.pi)
_LEAST_ALPHA = 1e-100
_FAR = -30.0  # below it, `erfc` approaches the smallest double; the asymptotic series is exact to 1e-9 there


def log_phi(z: float) -> float:
    """Return ln of the standard normal distribution function, without underflow."""
    if z > 0:
        return math.log1p(-0.5 * math.erfc(z / math.sqrt(2)))
    if z > _FAR:
        return math.log(0.5 * math.erfc(-z / math.sqrt(2)))
    inverse = 1 / (z * z)
    series = math.log1p(-inverse + 3 * inverse**2 - 15 * inverse**3)
    return -z * z / 2 - math.log(-z * math.sqrt(2 * math.pi)) + series


def log_e_normal(s: float, v: float, rho: float) -> float:
    """Return ln E for a sum `s` with variance `v`; `rho` sets the variance at which it is sharpest (`rho_for`)."""
    scale = v + rho
    return _LOG_2 + 0.5 * math.log(rho / scale) + s * s / (2 * scale) + log_phi(s / math.sqrt(scale))


@lru_cache(maxsize=1024)
def rho_for(v: float, alpha: float) -> float:
    """Return the rho that makes the boundary at level `alpha` tightest around variance `v`.

    `alpha` has a lower limit, because the square of a tiny one is 0, whose logarithm does not exist. Any rho is valid.
    """
    return v / (-_lambert_w_minus_1(-((2 * max(alpha, _LEAST_ALPHA)) ** 2) / math.e) - 1)


def bound_normal(v: float, alpha: float, rho: float) -> float:
    """Return the sum at which ln E reaches ln(1/alpha).

    This uses Newton's method in z = s / sqrt(v + rho), starting to the right of the root. There ln E is increasing and
    convex, so every step stays on that side. The start is on the right because ln Phi(z) >= -ln 2 for z >= 0.
    """
    scale = v + rho
    target = -math.log(alpha) - _LOG_2 - 0.5 * math.log(rho / scale)
    z = math.sqrt(2 * (target + _LOG_2))
    for _ in range(50):
        phi = 0.5 * math.erfc(-z / _SQRT_2)
        density = math.exp(-z * z / 2) / _SQRT_2_PI
        step = (z * z / 2 + math.log(phi) - target) / (z + density / phi)
        z -= step
        if abs(step) < 1e-12 * z:
            break
    return z * math.sqrt(scale)


def _lambert_w_minus_1(x: float) -> float:
    """Return the lower real branch of Lambert's W on [-1/e, 0), by Halley's method."""
    if x < -0.25:
        p = -math.sqrt(max(0.0, 2 * (1 + math.e * x)))
        w = -1 + p - p * p / 3
    else:
        w = math.log(-x) - math.log(-math.log(-x))
    for _ in range(50):
        e_w = math.exp(w)
        f = w * e_w - x
        if w == -1 or f == 0:
            break
        step = f / (e_w * (w + 1) - (w + 2) * f / (2 * w + 2))
        w -= step
        if abs(step) < 1e-14 * abs(w):
            break
    return w
