"""Python's garbage collector, in a process that holds the whole suite."""

import gc


def pytest_collection_finish() -> None:
    """What has been collected by pytest stays: else each `gc.collect()` of a test looks through a million objects."""
    gc.collect()
    gc.freeze()
