"""A Ray cluster on this machine: started, given machines and robbed of them by lines of JSON on stdin.

    {"add": NAME, "cpus": 1, "gpus": 0, "environment": {}}      {"kill": NAME}

It answers each with a line, the first being the address. It ends, with all machines, when stdin does.
"""

import json
import os
import shutil
import sys
import tempfile

from ray.cluster_utils import Cluster

LONGEST = 24
"""Characters of the path of the temporary folder: a socket's path has at most 107 (sun_path of unix(7) without
its end), and Ray's own part of it takes the rest."""


def temporary() -> str:
    """A new folder for all that Ray writes, with a path short enough for the sockets in it."""
    place = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="ray", dir=place if len(place) <= LONGEST else "/tmp")


def main() -> None:
    """Be the cluster."""
    folder = temporary()
    os.environ["RAY_TMPDIR"] = folder  # `temp_dir` does not move the file in which Ray notes the cluster's address
    head = {"num_cpus": 0, "include_dashboard": False, "node_name": "head"}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = {}
    try:
        print(cluster.address, flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            if name := asked.get("add"):
                nodes[name] = cluster.add_node(
                    num_cpus=asked["cpus"],
                    num_gpus=asked["gpus"],
                    node_name=name,
                    object_store_memory=80 * 1024 * 1024,
                    env_vars=asked["environment"],
                )
            else:
                cluster.remove_node(nodes.pop(asked["kill"]), allow_graceful=False)
            print("done", flush=True)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
