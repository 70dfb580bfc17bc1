"""Several workers, and one limit for all of them: they count in Redis. REDIS_URL of the environment says where it is."""

import os

import fleet_pb2
import fleet_pb2_grpc
import grpc
import redis

from interpose.contrib.redis import RedisStore
from interpose.interceptors import AccessLog, RateLimit

store = RedisStore(redis.Redis.from_url(os.environ["REDIS_URL"]), fail="closed")  # without Redis no work is done
stack = [AccessLog(), RateLimit("10/hour", store=store)]


class Fleet(fleet_pb2_grpc.FleetServicer):
    def Work(self, request: fleet_pb2.WorkRequest, context: grpc.ServicerContext) -> fleet_pb2.WorkResponse:
        return fleet_pb2.WorkResponse(worker=os.getpid())


app = [Fleet()]
