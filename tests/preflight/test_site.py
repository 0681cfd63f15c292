"""The jobs' requests to SLURM, and whether SLURM could ever grant them."""

import re
import shlex
from math import inf
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string

from workflow_scripts.common.errors import InputError
from workflow_scripts.preflight import check
from workflow_scripts.preflight.check import check_site
from workflow_scripts.preflight.site import (
    Nodes,
    Request,
    check_request,
    gpus_in,
    parse_minutes,
    parse_nodes,
    request_of,
)

SITE = [
    Nodes("cpu", inf, 64, 500_000, {}),
    Nodes("h200", 2880, 96, 1_500_000, {"h200": 4}),
    Nodes("mixed", 720, 32, 250_000, {"a100": 2}),
    Nodes("mixed", 720, 64, 250_000, {"a100": 8}),
]


def asking(**changed):
    asked = {
        "partition": "h200",
        "minutes": 2880,
        "cpus": 32,
        "mem_mb": 200_000,
        "gpus": 4,
        "gpu_model": "h200",
    }
    return Request(**{**asked, **changed})


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("infinite", inf),
        ("n/a", inf),
        ("2-00:00:00", 2880),
        ("1-12:30:00", 2190),
        ("4:00:00", 240),
        ("30:00", 30),
        ("1:30", 1.5),
    ],
)
def test_time_limits_are_read_as_sinfo_writes_them(text, minutes):
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("(null)", {}),
        ("gpu:h200:8(S:0-1)", {"h200": 8}),
        ("gpu:nvidia_a100_3g.20gb:2(S:0),gpu:a100:1(S:1),nvme", {
            "nvidia_a100_3g.20gb": 2, "a100": 1,
        }),
        ("lscratch:900,gpu:4", {"": 4}),
        ("gpu", {"": 1}),
        ("gpu:h200", {"h200": 1}),
        ("gpu:a100:no_consume:4", {"a100": 4}),
        ("gpu:no_consume:2", {"": 2}),
    ],
)  # fmt: skip
def test_gpus_are_read_as_sinfo_writes_them(text, gpus):
    assert gpus_in(text) == gpus


def test_a_line_of_sinfo_is_a_kind_of_nodes():
    line = "h200|2-00:00:00|96|1500000|gpu:h200:4\n"
    assert parse_nodes(line) == SITE[1]
    with pytest.raises(ValueError, match="unpack"):
        parse_nodes("h200 up")


@pytest.mark.parametrize(
    "request_",
    [
        asking(),
        asking(partition="nowhere,h200"),
        asking(gpu_model=None),
        asking(gpu_model="H200"),
        asking(partition="mixed", minutes=60, gpus=8, gpu_model="a100"),
        asking(partition="cpu", minutes=10**6, gpus=0, gpu_model=None, cpus=64),
        asking(partition=None, cpus=10**6),
    ],
)
def test_what_a_node_has_is_granted(request_):
    check_request(request_, SITE)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (asking(partition="h100"), "no partition h100; SLURM has cpu, h200, mixed"),
        (asking(minutes=2881), "partition h200 allows 2880"),
        (asking(gpu_model="nvidia_h200"), r"4 GPU\(s\) nvidia_h200; a node has 4 x h200"),
        (asking(gpus=5), r"has 5 GPU\(s\) h200"),
        (asking(partition="cpu", gpus=1), "a node has none"),
        (asking(cpus=97), "97 CPUs, .* at most 96"),
        (asking(mem_mb=1_500_001), "MB of memory"),
        # Only the nodes with eight GPUs have 64 CPUs.
        (asking(partition="mixed", minutes=60, gpus=8, gpu_model="a100", cpus=65), "at most 64"),
    ],
)
def test_what_no_node_has_is_refused_with_what_there_is(request_, words):
    with pytest.raises(InputError, match=words) as caught:
        check_request(request_, SITE)
    assert caught.value.remedy


@given(
    st.integers(1, 10_000), st.integers(1, 256), st.integers(1, 10**7), st.integers(1, 16),
    st.sampled_from(["minutes", "cpus", "mem_mb", "gpus"]),
)  # fmt: skip
def test_all_of_a_node_is_granted_and_no_bit_more(minutes, cpus, memory, gpus, what):
    nodes = [Nodes("p", minutes, cpus, memory, {"m": gpus})]
    whole = {"minutes": minutes, "cpus": cpus, "mem_mb": memory, "gpus": gpus}
    check_request(Request("p", gpu_model="m", **whole), nodes)
    with pytest.raises(InputError):
        check_request(Request("p", gpu_model="m", **{**whole, what: whole[what] + 1}), nodes)


@pytest.mark.parametrize(
    "resources",
    [
        {"gpu": 4, "gpu_model": "h200", "cpus_per_task": 32, "nodes": 1},
        {"gpu": 2, "nodes": 1},
        {"gpu_model": "a100", "nodes": 1},
        {"gpu": 2, "gpu_model": "a100", "nodes": 1, "cpus_per_gpu": 8},
        {"gres": "gpu:h200:4", "gpu": 0, "nodes": 1, "cpus_per_task": 16},
        {"nodes": 1},
    ],
)
def test_a_request_is_what_the_executor_submits(resources):
    """The request equals the flags of the executor's own command."""
    common = {"slurm_partition": "p", "runtime": 90, "mem_mb": 8000}
    request = request_of({**common, **resources}, threads=3)

    class Resources(dict):
        __getattr__ = dict.__getitem__

    job = SimpleNamespace(resources=Resources(common | resources), threads=3)
    names = ("run_uuid", "slurm_logfile", "comment_str", "account", "workdir")
    params = dict.fromkeys(names, "x") | {"partition": "-p p"}
    command = get_submit_command(job, params) + set_gres_string(job)
    words = shlex.split(command)

    def flag(name):
        values = re.findall(rf"{name}[= ](\S+)", command)
        return values[0] if values else None

    assert request.partition == words[words.index("-p") + 1]
    assert str(request.minutes) == words[words.index("-t") + 1]
    assert str(request.mem_mb) == flag("--mem")
    asked = flag("--gpus") or (flag("--gres") or "").removeprefix("gpu:") or "0"
    model, _, number = asked.rpartition(":")
    assert (request.gpu_model or "", request.gpus) == (model, int(number))
    per_gpu = flag("--cpus-per-gpu")
    assert request.cpus == int(flag("--cpus-per-task") or int(per_gpu) * int(number))


def test_gpus_that_may_lie_on_several_nodes_are_counted_by_node():
    assert request_of({"gpu": 8, "nodes": 2}, 1).gpus == 4
    assert request_of({"gpu": 8}, 1).gpus == 1


def test_what_snakemake_does_not_know_yet_is_not_judged():
    unknown = request_of({"slurm_partition": "cpu", "mem_mb": "<TBD>", "runtime": None}, 1)
    assert (unknown.mem_mb, unknown.minutes) == (0, 0)
    check_request(unknown, SITE)


def test_jobs_for_another_cluster_are_not_judged_by_this_one():
    assert request_of({"clusters": "other", "slurm_partition": "p"}, 1) is None


def test_who_asks_alike_is_one_line_and_a_silent_slurm_refuses_nothing(monkeypatch, caplog):
    asked = {asking(partition="h100"): ["finetune_train", "generate_sample"], asking(): ["a"]}
    monkeypatch.setattr(check, "read_nodes", lambda: SITE)
    wrong, right = check_site(asked)
    assert wrong.what == "SLURM for finetune_train and 1 more"
    assert "no partition h100" in str(wrong.fault)
    assert right.fault is None

    def silent():
        raise FileNotFoundError("sinfo")

    monkeypatch.setattr(check, "read_nodes", silent)
    assert check_site(asked) == []
    assert "are not checked: sinfo" in caplog.text


def test_a_narrow_terminal_shows_requests_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = check.format_checks([check.Check("SLURM for " + 40 * "x", str(asking()))])
    assert "h200: 4 x h200, 32 CPUs, 200000 MB, 2880 min" in shown
