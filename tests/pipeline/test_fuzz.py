"""The real readers on damaged, odd and hostile files: nothing but our own errors comes out of them."""

import pytest

from benchmarks.fuzz import FuzzRun
from benchmarks.hostile_files import makers
from rarezoo.errors import ConfigError


@pytest.mark.slow
def test_readers_raise_only_our_own_errors_within_time_and_memory(tmp_path):
    report = FuzzRun(seed=2026, seconds=60, out=str(tmp_path / "fuzz")).run()
    print(report.summary())
    assert not report.faults, report.summary()
    assert {*report.read, *report.refused} == set(makers())


@pytest.mark.slow
def test_a_fault_is_kept_with_its_reason_and_can_be_made_again(tmp_path):
    # With so little memory the reader cannot hold the cell.
    report = FuzzRun(kinds=["cell-CSV"], memory=0.01, out=str(tmp_path / "fuzz")).run()
    (fault,) = report.faults
    assert "MemoryError" in fault.reason or "bad_alloc" in fault.reason or "process" in fault.reason
    assert fault.kind == "cell-CSV"
    assert "seed=0 only=0" in report.summary()
    assert (tmp_path / "fuzz" / "cell-CSV-0-0" / "t.csv").stat().st_size > 2**27
    assert not FuzzRun(kinds=["cell-CSV"], only=0, out=str(tmp_path / "again")).run().faults


@pytest.mark.unit
def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"no such kind.*tables.csv.*table.csv"):
        FuzzRun(kinds=["tables.csv"])
