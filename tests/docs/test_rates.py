"""The lists of measured and missing rates in docs/performance.md are those of the CSV files."""

import re
from pathlib import Path

from tests.workflow.checkouts import ROOT, run
from workflow_scripts.preflight.check import read_config
from workflow_scripts.preflight.cost_model import expected_cohort, works
from workflow_scripts.preflight.rates import newest, read_rates

PAGE = ROOT / "docs/performance.md"


def kept_rates():
    """The rates of committed files: a user's own measurements change no page."""
    kept = set(run(["git", "ls-files", "*.csv"], ROOT).stdout.splitlines())
    return [rate for rate in read_rates() if rate.file in kept]


def rates_of(config, rates):
    """Return a row for each part of gpu-check that a config's plan asks for: (part, have, lack).

    The plan is that with a curated set (`make plan PLAN="--curate sana"`).
    """
    kinds = sorted({rate.kind for rate in rates})
    have, lack = {}, {}
    for work in works(config, expected_cohort(config), ["sana"]):
        part, on = work.parts[0], []
        for kind in kinds:
            if newest(rates, kind, work.parts, work.name, work.settings):
                on.append(kind)
        where = have if on else lack
        said = f"{work.name} ({', '.join(on)})" if on else work.name
        where.setdefault(part, {})[said] = None
        have.setdefault(part, {})
    return [(part, "; ".join(have[part]), "; ".join(lack.get(part, {}))) for part in have]


def table_of(rows):
    lines = [f"| `{part}` | {have or '–'} | {lack or '–'} |" for part, have, lack in sorted(rows)]
    return "\n".join(["| part | measured | missing |", "|---|---|---|", *lines])


def test_the_page_lists_what_was_measured_and_what_is_missing():
    """To renew the table: `python -m tests.docs.test_rates`."""
    config = read_config([str(ROOT / "config.yaml")])
    table = table_of(rates_of(config, kept_rates()))
    assert table in PAGE.read_text(), table


def test_a_new_measurement_changes_the_table():
    config = read_config([str(ROOT / "config.yaml")])
    before = {part: row for part, *row in rates_of(config, kept_rates())}
    assert before["sample:sd_v1_5"] == ["", "images per second"]
    assert "closest by score (H100)" in before["search"][0]
    assert before["likeness"] == ["", "pairs per second"]
    without = {part: row for part, *row in rates_of(config, [])}
    assert without["search"] == ["", "closest by distance; closest by score"]
    assert set(without) == set(before)


def test_numbers_of_the_page_are_those_of_the_csv():
    """The H100's rates that the page states, by part and name, as the files have them."""
    text = PAGE.read_text()
    values = {(rate.part, rate.name): rate.value for rate in kept_rates() if rate.kind == "H100"}
    stated = {
        ("train:sd_v1_5", "seconds per step"): r"\(([\d.]+) s a step\) \| H100",
        ("search", "closest by distance"): r"the same on an H100 \| ([\d.]+) s",
        ("search", "closest by score"): r"([\d.]+) s on the H100 \|",
        (
            "classify",
            "images per second",
        ): r"1,874 images/s \| ([\d,]+);",
        (
            "report:adapter",
            "images per second",
        ): r"--published`\) \| [\d.]+ images/s \| ([\d.]+) ",
        ("encode:rad_dino", "whole, generated"): r"--rad-dino`\) \| 120 images/s \| (\d+) ",
        ("encode:inception_v3", "whole, generated"): r"2,500 images/s \| (\d+) and",
        ("encode:densenet_121", "whole, generated"): r"2,500 images/s \| \d+ and (\d+) ",
    }
    assert set(stated) == set(values)
    for key, pattern in stated.items():
        found = re.search(pattern, text)
        assert found, (key, pattern)
        assert float(found[1].replace(",", "")) == values[key], key


def main() -> None:
    config = read_config([str(Path(ROOT) / "config.yaml")])
    table, text = table_of(rates_of(config, kept_rates())), PAGE.read_text()
    old = re.search(r"\| part \| measured \| missing \|\n(\|.*\n)+", text)
    PAGE.write_text(text.replace(old[0], table + "\n") if old else text)


if __name__ == "__main__":
    main()
