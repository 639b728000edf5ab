"""The few distributions that intervals need, without SciPy, which takes longer to import than nbopt."""

from __future__ import annotations

import math
from statistics import NormalDist

_NORMAL = NormalDist()
_NEARLY_NORMAL = 5000.0  # degrees of freedom
_MANY = 50.0


def normal_cdf(x: float) -> float:
    """Return the probability that a standard normal value is at most `x`."""
    return _NORMAL.cdf(x)


def normal_quantile(p: float) -> float:
    """Return the value that a standard normal one stays below with probability `p`, 0 < p < 1."""
    return _NORMAL.inv_cdf(p)


def t_tail(t: float, degrees: float) -> float:
    """Return the probability that Student's t with `degrees` >= 1 degrees of freedom exceeds `t` >= 0."""
    if math.isinf(t):
        return 0.0
    if degrees > _NEARLY_NORMAL:  # Abramowitz and Stegun 26.7.8, within 1e-8
        return 1.0 - normal_cdf(t * (1 - 0.25 / degrees) / math.sqrt(1 + 0.5 * t * t / degrees))
    return 0.5 * _incomplete_beta(0.5 * degrees, 0.5, degrees / (degrees + t * t))


def t_quantile(p: float, degrees: float) -> float:
    """Return the value that Student's t stays below with probability `p`, 0.5 <= p < 1, `degrees` >= 1."""
    z = normal_quantile(p)
    if degrees > _MANY:  # Abramowitz and Stegun 26.7.5
        terms = (
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
            (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
        )
        return z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms))
    low, high = 0.0, 2.0
    while t_tail(high, degrees) > 1 - p:
        low, high = high, 2 * high
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if t_tail(middle, degrees) > 1 - p else (low, middle)
    return 0.5 * (low + high)


def binomial_half_tail(k: int, n: int) -> float:
    """Return the probability of at most `k` heads in `n` throws of a fair coin, 0 <= k <= n.

    Sums terms downward from `k` until they no longer count, so that millions of throws cost nothing.
    """
    if k >= n:
        return 1.0
    if 2 * k > n - 1:
        return 1.0 - binomial_half_tail(n - k - 1, n)
    log_term = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
    total, term = 0.0, 1.0
    for i in range(k, -1, -1):
        total += term
        term *= i / (n - i + 1)
        if term < 1e-18 * total:
            break
    return min(1.0, math.exp(log_term + math.log(total)))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularized incomplete beta function, by a continued fraction (Press et al. 2007, 6.4)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    fraction = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for part in (even, odd):
            d = 1 / (1 + part * d or tiny)
            c = 1 + part / c or tiny
            step = c * d
            fraction *= step
        if abs(step - 1) < 1e-14:
            break
    return math.exp(log_front) * fraction / a
