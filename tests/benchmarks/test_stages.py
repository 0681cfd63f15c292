"""What jobs took is summed by stage; what ran again counts by its last run."""

from tests.benchmarks.stages import took_by_stage


def test_the_last_lines_of_logs_are_summed_by_stage(tmp_path):
    logs = {
        "features/a.log": "x\n2026-11-28 22:00:00 took 2.5 s, 1.5 s of CPU, at most 90.0 MiB\n",
        "features/real/b.log": "took 1.0 s, 0.5 s of CPU\nagain\ntook 3.0 s, 2.0 s of CPU\n",
        "tables/c.log": "took 4.0 s, 4.5 s of CPU, at most 90.0 MiB\n",
        "tables/failed.log": "an error\n",
    }
    for name, text in logs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert took_by_stage(tmp_path) == {"features": (2, 5.5, 3.5), "tables": (1, 4.0, 4.5)}
