"""The tree is what the architecture page says: one name per stage, and imports that run one way."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "workflow_scripts"
PAGE = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
STAGES, BESIDE = (
    re.findall(r"^\| `?(\w+)/?`? \|", table, re.MULTILINE)
    for table in (
        PAGE[PAGE.index("| stage |") + 1 : PAGE.index("Beside the stages")],
        PAGE[PAGE.index("| folder of") : PAGE.index("A stage imports")],
    )
)


def imported(path):
    """Return the folders of the package from which a module imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("workflow_scripts.")}


def test_a_stage_imports_from_the_stages_above_it_alone():
    for i, stage in enumerate(STAGES):
        allowed = {"common", *STAGES[: i + 1]}
        if stage == "tables":  # the report shows what the run cost, beside the plan
            allowed |= {"costs", "preflight"}
        for path in (PACKAGE / stage).rglob("*.py"):
            assert imported(path) <= allowed, path
    for path in (PACKAGE / "common").rglob("*.py"):
        assert imported(path) <= {"common"}, path


def test_a_stage_has_one_name_in_rules_scripts_and_tests():
    assert len(STAGES) == 10
    for stage in STAGES:
        assert (ROOT / f"rules/{stage}.smk").is_file()
        assert (PACKAGE / stage).is_dir()
        assert (ROOT / f"tests/{stage}").is_dir()


def test_no_folder_holds_more_than_a_fifth_of_the_code():
    lines = {
        folder.name: sum(len(path.read_text().splitlines()) for path in folder.rglob("*.py"))
        for folder in PACKAGE.iterdir()
        if (folder / "__init__.py").is_file()
    }
    assert set(lines) == {*STAGES, *BESIDE}
    assert max(lines.values()) < sum(lines.values()) / 5, lines
