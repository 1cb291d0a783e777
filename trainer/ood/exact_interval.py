"""How far a share that was counted may be from the true one."""

from scipy import stats


def exact_interval(hits: int, count: int) -> list[float]:
    """Return the exact (Clopper-Pearson) 95 % interval of a share; [0, 1] of nothing."""
    if count == 0:
        return [0.0, 1.0]
    interval = stats.binomtest(hits, count).proportion_ci(0.95, "exact")
    return [float(interval.low), float(interval.high)]
