"""How a script ends: it logs its time and memory; invalid input gives a message and status 2."""

import subprocess
import sys

from workflow_scripts.costs.attempts import memory_in_log

SCRIPT = """
import logging
from workflow_scripts.common.errors import InputError, run_script
def main():
    logging.getLogger("any").info("begins")
    held = bytearray(300 * 2**20)
    {end}
run_script(main)
"""


def run_main(end):
    text = SCRIPT.format(end=end)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)


def test_the_last_line_of_a_log_says_what_the_script_took(tmp_path):
    done = run_main("pass")
    first, last = done.stderr.splitlines()
    assert first.endswith("begins")
    (tmp_path / "log").write_text(done.stderr)
    memory = memory_in_log(tmp_path / "log")
    assert 300 < memory < 360
    assert f"at most {memory} MiB" in last


def test_bad_input_ends_with_its_message_and_status_2_and_other_faults_with_their_traceback():
    done = run_main('raise InputError("wrong", "here", "mend it")')
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("error: wrong\n  where: here\n  remedy: mend it\n")
    done = run_main('raise ValueError("a bug")')
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: a bug\n")
