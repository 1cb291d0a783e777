"""The Brownian bridge between an MR slice x0 and its CT slice y.

Time steps m run from 0 (MR) to 1 (CT). Pure arithmetic: every function takes numpy arrays or torch
tensors alike, with time steps that broadcast against the images. Images lie in [-1, 1].
Equation numbers are the paper's.
"""

import math
from dataclasses import dataclass
from typing import Any

SCALE = 1.0  # s of delta = 2 s (m - m^2): variance at most 0.5
RHO_FLOOR = 0.05
WEIGHT_LIMIT = 10.0


def variance(m: Any) -> Any:
    """Return delta(m) = 2 s (m - m^2), the variance of the bridge at time step m."""
    return 2 * SCALE * (m - m * m)


def marginal(x0: Any, y: Any, m: Any, noise: Any) -> Any:
    """Return x_m = (1 - m) x0 + m y + sqrt(delta) noise, a state of the bridge (eq. 1)."""
    return (1 - m) * x0 + m * y + variance(m) ** 0.5 * noise


def estimate(state: Any, flow: Any) -> Any:
    """Return x0_hat = x_m - f, the MR slice that the network predicts at time step m."""
    return state - flow


@dataclass(frozen=True)
class Step:
    """One step from time step `m` to `m_next` (0 <= m_next < m <= 1).

    `eta` is the share of fresh noise: 1 samples the posterior (eq. 4), 0 is deterministic.
    Equation 3 of the paper, the mean of that posterior, is printed with a plus sign before its
    coefficient c_e; with it the mean does not return x0, so the sign is minus here.
    """

    m: float
    m_next: float
    eta: float

    def back(self, state: Any, x0_hat: Any, y: Any, noise: Any) -> Any:
        """Return the state at `m_next`; at 0 that is x0_hat itself.

        At m = 1 the state is y and contains no noise, so the whole variance is taken from `noise`.
        """
        d_t, d_s = variance(self.m), variance(self.m_next)
        mean = (1 - self.m_next) * x0_hat + self.m_next * y
        if d_t == 0:
            return mean + math.sqrt(d_s) * noise
        ratio = (1 - self.m) / (1 - self.m_next)
        fresh = self.eta**2 * (d_t - d_s * ratio * ratio) * d_s / d_t
        carried = math.sqrt(max(d_s - fresh, 0.0) / d_t)
        deviation = state - (1 - self.m) * x0_hat - self.m * y
        return mean + carried * deviation + math.sqrt(fresh) * noise


def contrast(squared_difference: Any) -> Any:
    """Return rho from the mean over the head of (y - x0)^2, floored so that W stays finite."""
    return (squared_difference + RHO_FLOOR**2) ** 0.5


def direction(x0: Any, y: Any, state: Any, weight: Any) -> Any:
    """Return the output of a unitized network: (x_m - y) + W (y - x0).

    While W is below its limit this is eq. 6 itself, g = m (y - x0)/rho + sqrt(delta) eps.
    """
    return (state - y) + weight * (y - x0)


def estimate_from_direction(direction: Any, y: Any, state: Any, weight: Any) -> Any:
    """Return x0_hat = y - [f - (x_m - y)]/W, which undoes `direction`."""
    return y - (direction - (state - y)) / weight


def directional_weight(m: Any, rho: Any) -> Any:
    """Return W = min((1 - m) + m / rho, 10), which turns BBDM's loss into eq. 6.

    With g = m (y - x0)/rho + sqrt(delta) eps, exactly g - (x_m - y) = ((1 - m) + m/rho)(y - x0).
    """
    weight = (1 - m) + m / rho
    return weight.clip(max=WEIGHT_LIMIT) if hasattr(weight, "clip") else min(weight, WEIGHT_LIMIT)
