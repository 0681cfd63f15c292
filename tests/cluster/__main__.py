"""`make cluster`, `make cluster-demo`, `make cluster-stop`: a private SLURM to try the workflow on.

python -m tests.cluster start
python -m tests.cluster demo    # start it where it does not run, and the demo through it
python -m tests.cluster stop
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.cluster.cluster import Cluster, ClusterError
from tests.cluster.profile import write_profile

FOLDER, PROFILE = Path(".cluster"), Path("profiles/slurm_h200")
CONFIG = ("config.yaml", "profiles/demo/overlay.yaml")


def main() -> None:
    """Start, use or stop the cluster of the working directory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("action", choices=("start", "demo", "stop"))
    action = parser.parse_args().action
    cluster = Cluster(FOLDER)
    try:
        if action == "stop":
            cluster.stop()
        elif action == "start" or not cluster.running:
            start(cluster)
    except ClusterError as error:
        sys.exit(f"error: {error}")
    if action == "demo":
        fitted = write_profile(PROFILE.resolve(), FOLDER / "profile")
        command = ["snakemake", "--profile", str(fitted), "--configfile", *CONFIG]
        sys.exit(subprocess.run(command, env=cluster.environment()).returncode)


def start(cluster: Cluster) -> None:
    """Start a cluster and say how to use it."""
    cluster.start()
    print(cluster.run(["sinfo", "-N", "-o", "%8N %10P %6t %3c CPUs %8m MB %G"]), end="")
    print("to use it in a shell, and to let Snakemake submit to it:")
    print(f"  export SLURM_CONF={cluster.conf} PATH={cluster.folder / 'bin'}:$PATH")


if __name__ == "__main__":
    main()
