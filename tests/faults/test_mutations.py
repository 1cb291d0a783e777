"""What a seed makes of valid sessions and data sets is survived and answered as documented."""

from tests.faults.mutations import mutate


def test_mutated_sessions_and_data_sets_get_documented_answers() -> None:
    result = mutate(streams=60, data_sets=200, seed=1)
    assert result.alive
    assert result.undocumented == []
    assert len(result.answers) > 5, "mutations reach the scan"
    assert result.echo_s
    assert result.peak_bytes < 400_000_000
