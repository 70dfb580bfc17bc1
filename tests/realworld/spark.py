"""A real Spark Connect server; its client makes the channel itself, and takes native interceptors."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from interpose import native_interceptors
from interpose.interceptors import RequestId, Retry
from tests.realworld.scenarios import PATIENCE, Scenario, Watch, free_port, refused


@contextmanager
def running() -> Iterator[str]:
    """A server in a JVM of its own, from the package pyspark; gives its target."""
    import pyspark

    home = Path(pyspark.__file__).parent
    port = free_port()
    settings = {
        "spark.connect.grpc.binding.port": port,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "512m",
        "spark.ui.enabled": "false",
    }
    options = [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
    server = "org.apache.spark.sql.connect.service.SparkConnectServer"
    command = [
        str(home / "bin" / "spark-submit"),
        "--class",
        server,
        "--master",
        "local[1]",
        *options,
        "spark-internal",
    ]
    environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process,
    ):
        try:
            target = f"127.0.0.1:{port}"
            with grpc.insecure_channel(target, [("grpc.max_reconnect_backoff_ms", 500)]) as channel:
                grpc.channel_ready_future(channel).result(PATIENCE)
            yield target
        finally:
            process.kill()


def run() -> None:
    from pyspark.errors import AnalysisException
    from pyspark.sql.connect.client import DefaultChannelBuilder
    from pyspark.sql.connect.session import SparkSession

    watch = Watch()
    with running() as target:
        builder = DefaultChannelBuilder(f"sc://{target}")
        for interceptor in native_interceptors(RequestId(), watch, Retry()):
            builder.add_interceptor(interceptor)
        spark = SparkSession.builder.channelBuilder(builder).create()
        assert spark.range(1000).selectExpr("sum(id) AS sum").collect()[0].sum == 499_500
        assert [row.n for row in spark.createDataFrame([(1,), (2,)], ["n"]).filter("n > 1").collect()] == [2]
        with refused(AnalysisException, "TABLE_OR_VIEW_NOT_FOUND"):
            spark.sql("SELECT nothing FROM nowhere").collect()
        spark.stop()
    assert watch.codes("ExecutePlan").count("INTERNAL") == 1
    assert watch.codes("FetchErrorDetails") == ["OK"]


SCENARIOS = [
    Scenario(
        "Spark Connect",
        ("pyspark",),
        "`native_interceptors(RequestId(), Retry())` in its `ChannelBuilder`",
        "Queries give their rows. One for a missing table raises the AnalysisException with its text, from the details that "
        "Spark sends.",
        run,
        "java",
    )
]
