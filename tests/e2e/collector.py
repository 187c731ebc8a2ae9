"""A collector for the metrics that Airflow's processes export by OpenTelemetry's protocol."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

__all__ = ["Collector", "Metric", "collecting"]

PREFIX = "airflow."


class Metric(NamedTuple):
    """The sum of one name's counters, or timings, over all processes.

    :param total: the sum of the counters, or of the timings in milliseconds.
    :param count: the number of timings, or of processes that had the counter.
    """

    total: float
    count: int


class Collector:
    """Keeps the last value that each process has exported, since processes export running totals."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        # By name and task; then by the counter's start, which tells the processes apart.
        self._metrics: dict[tuple[str, str, str], dict[int, Metric]] = defaultdict(dict)

    def of_task(self, dag_id: str, task_id: str) -> dict[str, Metric]:
        """Return the metrics that are tagged with a task, by name."""
        with self._lock:
            return {
                name: Metric(sum(m.total for m in kept.values()), sum(m.count for m in kept.values()))
                for (name, *task), kept in self._metrics.items()
                if task == [dag_id, task_id]
            }

    def take(self, body: bytes) -> None:
        """Keep the values of an export."""
        export = ExportMetricsServiceRequest.FromString(body)
        with self._lock:
            for resource in export.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in metric.sum.data_points:
                            self._keep(metric.name, point, Metric(point.as_int or point.as_double, 1))
                        for point in metric.exponential_histogram.data_points:
                            self._keep(metric.name, point, Metric(point.sum, point.count))

    def _keep(self, name: str, point: object, value: Metric) -> None:
        tags = {tag.key: tag.value.string_value for tag in point.attributes}  # type: ignore[attr-defined]
        key = (name.removeprefix(PREFIX), tags.get("dag_id", ""), tags.get("task_id", ""))
        self._metrics[key][point.start_time_unix_nano] = value  # type: ignore[attr-defined]


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}/v1/metrics")
    thread = threading.Thread(target=server.serve_forever, name="collector")
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
