"""A Ray cluster on this machine: started, given machines and robbed of them by lines of JSON on stdin.

    {"add": NAME, "cpus": 1, "gpus": 0, "environment": {}}      {"kill": NAME}

It answers each with a line, the first being the address. It ends, with all machines, when stdin does.
"""

import json
import shutil
import sys
import tempfile

from ray.cluster_utils import Cluster


def main() -> None:
    """Be the cluster."""
    folder = tempfile.mkdtemp(prefix="ray")  # sockets lie in it, whose paths must be short
    head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder, "node_name": "head"}
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
