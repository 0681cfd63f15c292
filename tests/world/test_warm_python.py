"""Scripts behave in a forked Python as in a fresh one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from workflow_scripts.world.warm_python import _KEEPING, warm_python

LIBRARY = "colorsys"
"""A module that nothing else imports; it is loaded already if Python was forked."""

REPORT = f"""
import json, os, sys
print(json.dumps({{
    "warm": "{LIBRARY}" in sys.modules,
    "arguments": sys.argv[1:],
    "main": __name__ == "__main__" and __spec__.name,
    "folder": os.getcwd(),
    "script": sys.argv[0],
    "environment": dict(os.environ),
    "umask": os.umask(0o22),
    "read": sys.stdin.read(),
    "ours": sorted(name for name in sys.modules if name.startswith("workflow_scripts")),
    "group": os.getpgrp(),
}}))
"""


@pytest.fixture(scope="module")
def warm():
    """The folder of a warm `python` that is ready."""
    with warm_python([LIBRARY, "no_such_library", "json:no_such_name"], cold_starts=0) as folder:
        deadline = time.monotonic() + 30
        while not (folder / "socket").exists():
            assert time.monotonic() < deadline, "warm Python does not answer"
            time.sleep(0.02)
        yield folder


@pytest.fixture
def project(tmp_path):
    """A folder with a package named as ours, and a function that adds a script to it."""
    package = tmp_path / "workflow_scripts"
    package.mkdir()
    (package / "__init__.py").touch()

    def add(name, text):
        (package / f"{name}.py").write_text(text)

    add("report", REPORT)
    return tmp_path, add


def start(warm, folder, script, *arguments, **options):
    command = [str(warm / "python"), "-m", f"workflow_scripts.{script}", *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, text=True, **pipes | options)


def finish(process, **options):
    out, err = process.communicate(timeout=30, **options)
    return process.returncode, out, err


def wait_for(path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} does not come"
        time.sleep(0.02)


def test_a_script_sees_what_a_fresh_python_would_show_it(warm, project):
    folder, _ = project
    environment = {"PATH": os.environ["PATH"], "ONLY": "this ä"}
    process = start(
        warm, folder, "report", "--a", "two words", "ä", env=environment, stdin=subprocess.PIPE
    )
    status, out, err = finish(process, input="from the pipe")
    seen = json.loads(out)
    assert (status, err) == (0, "")
    assert seen["warm"]
    assert seen["arguments"] == ["--a", "two words", "ä"]
    assert seen["main"] == "workflow_scripts.report"
    assert seen["folder"] == str(folder)
    assert seen["script"] == str(folder / "workflow_scripts/report.py")
    assert {k: seen["environment"].get(k) for k in environment} == environment
    assert not {"HF_HUB_OFFLINE", "OMP_NUM_THREADS"} & set(seen["environment"]), "the forker's own"
    assert seen["read"] == "from the pipe"
    assert seen["ours"] == ["workflow_scripts"]
    assert seen["group"] == os.getpgrp()


def test_the_umask_is_the_askers(warm, project):
    for umask in (0o077, 0o022):
        process = start(warm, project[0], "report", umask=umask)
        assert json.loads(finish(process)[1])["umask"] == umask


def test_an_edited_script_is_read_again(warm, project):
    folder, add = project
    for said in ("one", "two, and longer"):
        add("again", f"print({said!r})")
        assert finish(start(warm, folder, "again"))[1] == f"{said}\n"


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit('what is wrong')", 1, "what is wrong\n"),
        ("raise ValueError('lost')", 1, "ValueError: lost\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        ("import nothing_of_that_name", 1, "No module named 'nothing_of_that_name'\n"),
    ],
)
def test_it_ends_as_the_script_ends(warm, project, text, status, words):
    folder, add = project
    add("ending", text)
    ended, _, err = finish(start(warm, folder, "ending"))
    assert ended == status
    assert err.endswith(words)
    assert bool(err) == bool(words)


def test_a_script_that_is_not_there_is_named(warm, project):
    status, _, err = finish(start(warm, project[0], "missing"))
    assert status == 1
    assert "workflow_scripts.missing" in err


def test_threads_exit_functions_and_unflushed_text_are_not_lost(warm, project):
    folder, add = project
    add(
        "late",
        "import atexit, sys, threading, time\n"
        "atexit.register(lambda: print('exit function', sys.modules['__main__'].__spec__.name))\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
        "print('begins'); print('err', file=sys.stderr)\n",
    )
    assert finish(start(warm, folder, "late")) == (
        0,
        "begins\nthread\nexit function workflow_scripts.late\n",
        "err\n",
    )


def test_scripts_run_side_by_side(warm, project):
    folder, add = project
    add(
        "meet",
        "import pathlib, sys, time\n"
        "mine, other = map(pathlib.Path, sys.argv[1:])\n"
        "mine.touch()\n"
        "while not other.exists(): time.sleep(0.01)\n",
    )
    pair = [start(warm, folder, "meet", *names) for names in (("a", "b"), ("b", "a"))]
    assert [finish(process)[0] for process in pair] == [0, 0]


WAIT = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); "


def is_gone(pid):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_script_ends_with_whoever_asked_for_it(warm, project, number):
    folder, add = project
    add("waits", WAIT + "pathlib.Path('ready').touch(); time.sleep(600)")
    process = start(warm, folder, "waits")
    wait_for(folder / "ready")
    process.send_signal(number)
    assert finish(process)[0] == -number
    assert is_gone(int((folder / "pid").read_text()))


def test_a_script_may_catch_the_signal(warm, project):
    folder, add = project
    add(
        "catches",
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(7)))\n"
        "pathlib.Path('ready').touch(); time.sleep(600)\n",
    )
    process = start(warm, folder, "catches")
    wait_for(folder / "ready")
    process.terminate()
    assert finish(process)[:2] == (7, "saved\n")


def test_an_interrupt_of_the_group_reaches_the_script_once(warm, project):
    folder, add = project
    add(
        "interrupted",
        "import pathlib, signal, time\n"
        "count = []\n"
        "signal.signal(signal.SIGINT, lambda *_: count.append(1))\n"
        "pathlib.Path('ready').touch()\n"
        "while not count: time.sleep(0.01)\n"
        "time.sleep(0.3); print(len(count))\n",
    )
    process = start(warm, folder, "interrupted", process_group=0)
    wait_for(folder / "ready")
    os.killpg(process.pid, signal.SIGINT)
    assert finish(process)[:2] == (0, "1\n")


def test_what_is_no_script_of_ours_is_plain_python(warm):
    text = f"import sys, numpy; print({LIBRARY!r} in sys.modules, sys.executable)"
    done = subprocess.run([warm / "python", "-c", text], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"False {sys.executable}\n")


def test_the_first_scripts_start_in_plain_python_and_those_that_follow_warm(project):
    folder, _ = project
    with warm_python([LIBRARY], cold_starts=2) as python:
        for _ in range(2):
            assert not json.loads(finish(start(python, folder, "report"))[1])["warm"]
        wait_for(python / "socket")
        assert json.loads(finish(start(python, folder, "report"))[1])["warm"]
    assert not python.exists()


def test_threads_are_those_that_the_environment_grants(project):
    folder, add = project
    add(
        "threads",
        "import numpy, threadpoolctl\n"
        "print(*{pool['num_threads'] for pool in threadpoolctl.threadpool_info()})\n",
    )
    with warm_python(["threadpoolctl", "numpy"], cold_starts=0) as python:
        wait_for(python / "socket")
        for count in ("1", "2"):
            granted = os.environ | {"OMP_NUM_THREADS": count}
            process = start(python, folder, "threads", env=granted)
            assert finish(process)[1] == f"{count}\n"


def test_memory_that_a_script_frees_is_kept_for_its_next_array(warm, project):
    """The kernel clears a page once, not again for every array."""
    folder, add = project
    add(
        "arrays",
        "import resource\n"
        "for _ in range(20):\n"
        "    [b'x' * (8 << 20 | i) for i in range(8)]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize())\n",
    )
    cleared = int(finish(start(warm, folder, "arrays"))[1])
    assert cleared < 4 * (64 << 20)


def test_make_keeps_memory_as_the_forker_does():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    for name, value in _KEEPING.items():
        assert f"export {name} ?= {value}\n" in makefile


def test_the_forker_ends_with_the_process_that_started_it(project):
    folder, _ = project
    text = (
        "import sys; from workflow_scripts.world import warm_python as w\n"
        "with w.warm_python([], cold_starts=0) as f:\n"
        "    import pathlib, time\n"
        "    pathlib.Path(sys.argv[1]).write_text(str(f)); time.sleep(600)\n"
    )
    said = folder / "said"
    process = subprocess.Popen([sys.executable, "-c", text, str(said)])
    wait_for(said)
    wait_for(Path(said.read_text()) / "socket")
    (forker,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    assert is_gone(forker.pid)
