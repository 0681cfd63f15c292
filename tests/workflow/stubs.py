"""The paper's whole config over files that are there in name alone: enough to plan on."""

import stat

import yaml


def write_overlay(checkout, overlay):
    """Write a config overlay into a checkout; return the flags that use it."""
    (checkout / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    return ["--configfile", "config.yaml", "overlay.yaml"]


def make_stub_sources(checkout):
    """Make empty files where MIMIC-CXR-JPG's tables and the annotations would lie."""
    names = [
        f"data/mimic-cxr-jpg/2.0.0/mimic-cxr-2.0.0-{name}.csv.gz"
        for name in ("metadata", "split", "chexpert")
    ]
    names += [
        f"data/llava-rad/chat_{split}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
        for split in ("train", "dev", "test")
    ]
    for name in names:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    return checkout


def sbatch_stand_in(folder):
    """Write stand-ins for SLURM's commands; `sbatch` records its arguments and fails."""
    folder.mkdir()
    notes = folder / "sbatch.jsonl"
    scripts = {
        "sbatch": "import json, sys\n"
        f"open({str(notes)!r}, 'a').write(json.dumps(sys.argv) + '\\n')\n"
        "sys.exit('stand-in')\n",
        **dict.fromkeys(("squeue", "sacct", "sinfo", "scontrol", "sacctmgr", "sshare"), ""),
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/usr/bin/env python3\n{script}")
        (folder / name).chmod(stat.S_IRWXU)
    return notes


AT_ONCE = ("--slurm-init-seconds-before-status-checks", "1")
"""The executor waits so long (1 s is the least) before it ends, also where it submitted no job."""
