"""Prints three pages, and lists what was printed. Its arguments: where the server is, and the token."""

import sys

import grpc
import printing_pb2
import printing_pb2_grpc

import interpose.policy
from interpose import errors, intercept_channel
from interpose.interceptors import BearerToken


def main(target: str, token: str) -> None:
    policy = interpose.policy.load("client.json")
    own = BearerToken(lambda: token, insecure="local")  # a secret is no policy
    with intercept_channel(grpc.insecure_channel(target, policy.channel_options), policy.client, own) as channel:
        printer = printing_pb2_grpc.PrinterStub(channel)
        for title in ("map", "poster", "ticket"):
            try:
                print("printed", printer.Print(printing_pb2.PrintRequest(title=title)).title)
            except (errors.PermissionDenied, errors.ResourceExhausted, errors.Unauthenticated) as error:
                print(error.code().name, title)
        print("jobs:", *(job.title for job in printer.ListJobs(printing_pb2.ListJobsRequest())))


if __name__ == "__main__":
    main(*sys.argv[1:])
