"""Arithmetic behind the interceptors: knows nothing of gRPC, keeps no clock of its own, and waits for nothing."""
