"""Sends more jobs than the limit allows, over several connections. Its one argument is where the server is."""

import sys
from collections import Counter

import fleet_pb2
import fleet_pb2_grpc
import grpc

from interpose import errors, intercept_channel

JOBS = 30
CONNECTIONS = 6  # the kernel deals them to the workers; of one all calls go to one worker


def main(target: str) -> None:
    ends: Counter[str] = Counter()
    workers = set()
    own = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each channel
    for number in range(CONNECTIONS):
        with intercept_channel(grpc.insecure_channel(target, own)) as channel:
            fleet = fleet_pb2_grpc.FleetStub(channel)
            for job in range(JOBS // CONNECTIONS):
                try:
                    workers.add(fleet.Work(fleet_pb2.WorkRequest(job=f"{number}-{job}"), timeout=10).worker)
                    ends["done"] += 1
                except errors.ResourceExhausted:
                    ends["refused"] += 1
    print(f"{ends['done']} done, {ends['refused']} refused, by {len(workers)} workers at least")


if __name__ == "__main__":
    main(sys.argv[1])
