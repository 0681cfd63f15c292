"""Fine-tuning through the whole workflow with a time limit that requires three jobs."""

import json

import pytest
import yaml

from tests.finetune.weights import weights_in
from tests.workflow.checkouts import jobs_in, make_checkout, run, with_world
from tests.workflow.stubs import write_overlay

pytestmark = [pytest.mark.workflow, pytest.mark.full]

FAMILIES = {"calm": "stable_diffusion", "slow": "tests.finetune.slow_family:SlowStableDiffusion"}
TARGETS = [f"results/finetune/{model}/checkpoint" for model in FAMILIES]
WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two equal models; by its clock, each step of one takes five minutes.

    Returns the checkout and the command that trained both.
    """
    checkout = with_world(make_checkout(tmp_path_factory.mktemp("spans")))
    tuned = {
        "method": "lora",
        "lora": {"rank": 4, "alpha": 4, "rslora": True, "targets": ["attention"]},
        "learning_rate": 1.0e-3,
        "epochs": 1,
        "batch_size": 64,
        "per_device_batch_size": 64,
        "size": 32,
        "caption_dropout": 0.1,
        "weight_decay": 1.0e-2,
        "max_grad_norm": 1.0,
        "warmup_steps": 2,
        "mixed_precision": "no",
        "gradient_checkpointing": False,
        "checkpoint_every": 100,
        "seed": 42,
    }
    overlay = {
        "run_models": list(FAMILIES),
        "models": {
            name: {
                "family": family,
                "base": "results/world/weights/tiny-sd-v1",
                "finetune": tuned,
                "generate": {"steps": 2, "guidance": 2.0, "size": 64, "batch_size": 16},
                "display": {"name": name},
            }
            for name, family in FAMILIES.items()
        },
    }
    write_overlay(checkout, overlay)
    configs = ["config.yaml", "profiles/demo/overlay.yaml", "overlay.yaml"]
    command = ["snakemake", "--profile", "profiles/demo", "--configfile", *configs]
    resources = ["finetune_train:gpu=0", "finetune_train:runtime=30"]
    command += ["--retries", "0", "--set-resources", *resources]
    command += ["--set-threads", "finetune_train=1", "--", *TARGETS]
    run(command, checkout)
    return checkout, command


def planned(command, checkout):
    """Return the jobs that a command would run."""
    return jobs_in(run([command[0], "--dry-run", *command[1:]], checkout).stdout)


def test_as_many_jobs_as_it_takes_give_what_one_gives(trained):
    checkout, _ = trained
    states = {
        model: [
            json.loads((folder / str(n) / "span.json").read_text())
            for n in range(1, len(list(folder.iterdir())) + 1)
        ]
        for model in FAMILIES
        for folder in [checkout / f"results/finetune/{model}/spans"]
    }
    for state in [*states["calm"], *states["slow"]]:
        assert state.pop("provenance")["device"] == "cpu"
    steps = states["calm"][0]["steps"]
    assert states["calm"] == [{"finished": True, "step": steps, "steps": steps}]
    assert [state["step"] for state in states["slow"]] == [3, 6, steps]
    assert [state["finished"] for state in states["slow"]] == [False, False, True]
    calm, slow = (checkout / "results/finetune" / model for model in FAMILIES)
    assert (calm / "training.csv").read_bytes() == (slow / "training.csv").read_bytes()
    assert weights_in(calm / "checkpoint" / WEIGHTS) == weights_in(slow / "checkpoint" / WEIGHTS)
    # The weights are stored once, the progress is gone, and each job has its log.
    assert (slow / "checkpoint" / WEIGHTS).samefile(slow / "spans/3/checkpoint" / WEIGHTS)
    assert not (slow / ".progress").exists()
    logs = {path.name for path in (checkout / "logs/finetune/slow").iterdir()}
    assert logs == {"span_1.log", "span_2.log", "span_3.log", "finish.log"}


def test_nothing_is_left_to_do_and_another_time_limit_changes_nothing(trained):
    checkout, command = trained
    other = [word.replace("runtime=30", "runtime=60") for word in command]
    for again in (command, other):
        assert planned(again, checkout) == set()


def test_a_lost_checkpoint_is_linked_again_and_not_trained(trained):
    checkout, command = trained
    weights = checkout / "results/finetune/slow/checkpoint" / WEIGHTS
    before = weights.read_bytes()
    for path in weights.parent.iterdir():
        path.unlink()
    weights.parent.rmdir()
    assert planned(command, checkout) == {("finetune_finish", "slow")}
    run(command, checkout)
    assert weights.read_bytes() == before


def test_other_settings_train_anew_from_the_first_span(trained):
    checkout, command = trained
    path = checkout / "overlay.yaml"
    text = path.read_text()
    changed = json.loads(json.dumps(yaml.safe_load(text)))  # without what the two share
    changed["models"]["slow"]["finetune"]["seed"] = 43
    path.write_text(yaml.safe_dump(changed))
    try:
        jobs = planned(command, checkout)
    finally:
        path.write_text(text)
    assert jobs == {("finetune_train", "slow"), ("finetune_finish", "slow")}
