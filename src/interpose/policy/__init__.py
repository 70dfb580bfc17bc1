"""Policy as data: a JSON or TOML file says which interceptors, with which options, are used for which methods."""

from interpose.policy.document import Fault, PolicyError
from interpose.policy.dumping import dump
from interpose.policy.live import Live
from interpose.policy.policy import Policy, check, load

__all__ = ["Fault", "Live", "Policy", "PolicyError", "check", "dump", "load"]
