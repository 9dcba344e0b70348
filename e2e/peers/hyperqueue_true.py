"""HyperQueue tasks a second, each a process that runs a shell command: hyperqueue_true.py [TASKS [CPUS [COMMAND]]]

One server and one worker with so many CPUs, on this machine. What tasks print goes nowhere, which is the peer at its
best. The worker is warm: 200 tasks come first. A client learns once a second whether a job is over, so there must be
many tasks. The best of three rounds; prints the number last.
"""

import sys
import tempfile
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

TASKS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
CPUS = int(sys.argv[2]) if len(sys.argv) > 2 else 2
COMMAND = sys.argv[3] if len(sys.argv) > 3 else "true"
ROUNDS = 3


def rate(client, folder, tasks):
    job = Job(default_workdir=folder)
    for _ in range(tasks):
        job.program(["sh", "-c", COMMAND], stdout=None, stderr=None)
    start = time.monotonic()
    # Raises if a task fails.
    client.wait_for_jobs([client.submit(job)])
    return tasks / (time.monotonic() - start)


with tempfile.TemporaryDirectory() as folder, LocalCluster(worker_config=WorkerConfig(cores=CPUS)) as cluster:
    client = cluster.client()
    rate(client, folder, 200)
    best = max(rate(client, folder, TASKS) for _ in range(ROUNDS))
print(best)
