import torch

from xception.cost.machine import Machine, measure_machine, median_ms, times

CPU = torch.device("cpu")


def test_the_ceilings_are_measured():
    machine = measure_machine(CPU, side=64, values=4096)
    assert machine.device == "cpu"
    assert machine.threads == torch.get_num_threads()
    # Between a pocket calculator and a thousand graphics cards.
    assert 1e3 < machine.macs_per_second < 1e18
    assert 1e3 < machine.bytes_per_second < 1e18


def test_floor_and_bound():
    machine = Machine("cpu", 2, macs_per_second=1e9, bytes_per_second=1e8)
    assert machine.floor_ms(2_000_000, 100_000) == 2.0
    assert machine.bound(2_000_000, 100_000) == "arithmetic"
    assert machine.floor_ms(2_000_000, 400_000) == 4.0
    assert machine.bound(2_000_000, 400_000) == "bandwidth"


def test_the_first_two_runs_do_not_count():
    runs: list[int] = []
    seconds = times(lambda: runs.append(len(runs)), CPU, repeats=3)
    assert len(runs) == 5
    assert len(seconds) == 3
    assert all(one >= 0 for one in seconds)
    assert median_ms(lambda: None, CPU, repeats=3) < 1000


def test_of_two_measurements_the_higher_ceilings():
    one = Machine("cpu", 2, macs_per_second=3e9, bytes_per_second=5e9)
    other = Machine("cpu", 2, macs_per_second=4e9, bytes_per_second=1e9)
    assert one.or_better(other) == Machine("cpu", 2, 4e9, 5e9) == other.or_better(one)
