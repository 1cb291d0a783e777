"""The arithmetic of the bridge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rebrain_node.model import bridge
from rebrain_node.model.sampling import noise_field, sample_slice, uniform_time_steps
from rebrain_node.model.source import SourceSlice, at_measured

TIME_STEPS = st.floats(0.01, 0.99)
VALUES = st.floats(-1, 1)


@given(
    places=st.lists(st.floats(0.01, 0.99), max_size=6, unique=True),
    eta=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_a_perfect_network_walks_back_to_the_mr_slice(
    places: list[float], eta: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x0 = rng.uniform(-1, 1, (16, 16)).astype(np.float32)
    y = rng.uniform(-1, 1, (16, 16)).astype(np.float32)

    def perfect(x: np.ndarray, s: np.ndarray) -> np.ndarray:
        return x[:, :1] - x0

    result = sample_slice(
        perfect,
        at_measured(SourceSlice(y, y, 0.0)),
        (1.0, *sorted(places, reverse=True)),
        eta=eta,
        noise=noise_field((16, 16), seed),
    )

    np.testing.assert_allclose(result, x0, atol=1e-6)


@given(m=TIME_STEPS, ratio=st.floats(0.01, 0.99), eta=st.floats(0, 1), x0=VALUES, y=VALUES)
def test_a_step_back_keeps_the_mean_and_the_variance_of_the_bridge(
    m: float, ratio: float, eta: float, x0: float, y: float
) -> None:
    m_next = m * ratio
    step = bridge.Step(m, m_next, eta)
    at_m = bridge.marginal(x0, y, m, 0.0)

    mean = step.back(at_m, x0, y, 0.0)
    of_state = step.back(at_m + 1.0, x0, y, 0.0) - mean
    of_noise = step.back(at_m, x0, y, 1.0) - mean

    assert mean == pytest.approx((1 - m_next) * x0 + m_next * y, abs=1e-9)
    variance = of_state**2 * bridge.variance(m) + of_noise**2
    assert variance == pytest.approx(bridge.variance(m_next), rel=1e-6, abs=1e-9)


@dataclass(frozen=True)
class Posterior:
    """Equation 3: mean c_x x_t + c_y y - c_e (x_t - x0_hat), and the variance."""

    c_x: float
    c_y: float
    c_e: float
    variance: float

    @classmethod
    def of(cls, m: float, m_next: float) -> Posterior:
        a = (1 - m) / (1 - m_next)
        d_t, d_s = bridge.variance(m), bridge.variance(m_next)
        d = d_t - d_s * a * a
        return cls(
            c_x=d_s / d_t * a + d / d_t * (1 - m_next),
            c_y=m_next - m * a * d_s / d_t,
            c_e=(1 - m_next) * d / d_t,
            variance=d * d_s / d_t,
        )


@given(m=TIME_STEPS, ratio=st.floats(0.05, 0.95), state=VALUES, x0=VALUES, y=VALUES)
def test_a_step_with_all_noise_fresh_is_the_posterior_of_equation_3(
    m: float, ratio: float, state: float, x0: float, y: float
) -> None:
    m_next = m * ratio
    law = Posterior.of(m, m_next)
    step = bridge.Step(m, m_next, 1.0)

    mean = step.back(state, x0, y, 0.0)
    spread = step.back(state, x0, y, 1.0) - mean

    assert mean == pytest.approx(law.c_x * state + law.c_y * y - law.c_e * (state - x0), abs=1e-6)
    assert spread**2 == pytest.approx(law.variance, rel=1e-5, abs=1e-9)


def test_the_printed_sign_of_equation_3_does_not_keep_the_bridge() -> None:
    m, m_next, x0, y = 0.6, 0.4, 0.5, -0.5
    law, state = Posterior.of(m, m_next), bridge.marginal(0.5, -0.5, 0.6, 0.0)

    printed = law.c_x * state + law.c_y * y + law.c_e * (state - x0)

    assert abs(printed - ((1 - m_next) * x0 + m_next * y)) > 0.05


@given(m=st.floats(0, 1), rho=st.floats(0.3, 1.5), x0=VALUES, y=VALUES, noise=st.floats(-3, 3))
def test_the_directional_target_is_bbdms_with_a_weight(
    m: float, rho: float, x0: float, y: float, noise: float
) -> None:
    target = m * (y - x0) / rho + bridge.variance(m) ** 0.5 * noise
    state = bridge.marginal(x0, y, m, noise)

    assert target - (state - y) == pytest.approx(
        bridge.directional_weight(m, rho) * (y - x0), abs=1e-6
    )


def test_the_weight_never_exceeds_its_limit() -> None:
    rho = bridge.contrast(0.0)

    assert bridge.directional_weight(1.0, rho) == bridge.WEIGHT_LIMIT
    weights = bridge.directional_weight(torch.tensor([0.0, 1.0]), torch.tensor(rho))
    assert weights.tolist() == [1.0, bridge.WEIGHT_LIMIT]


def test_numpy_and_torch_give_the_same_state() -> None:
    rng = np.random.default_rng(0)
    x0, y, noise = rng.normal(size=(3, 4, 4))

    as_torch = bridge.marginal(
        *(torch.from_numpy(a) for a in (x0, y)), 0.3, torch.from_numpy(noise)
    )

    np.testing.assert_allclose(as_torch.numpy(), bridge.marginal(x0, y, 0.3, noise))


def test_the_papers_walk_has_equal_steps_from_one_downwards() -> None:
    assert uniform_time_steps(4) == (1.0, 0.75, 0.5, 0.25)
