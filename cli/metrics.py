"""Gives out what the services of a process measure, on a port of its own: nobody who can reach a service can reach it.

prometheus-client writes the page and answers for it on a thread of its own. What a service tells of itself is asked for
on the loop, which it belongs to.
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from chassis.metrics import METRICS, Metric, Reading, ServiceMetrics

#: Below the 10 s that Prometheus waits.
_ANSWER_SECONDS: Final = 8.0

_log: Final = structlog.get_logger("kisum.metrics")

_Family = CounterMetricFamily | GaugeMetricFamily


class _Services(Collector):
    """All services of a process as one page: a metric is described once, whoever has it."""

    def __init__(self, services: Sequence[ServiceMetrics], loop: asyncio.AbstractEventLoop) -> None:
        self._services = services
        self._loop = loop

    def collect(self) -> Iterable[_Family]:
        """Called by a thread of the listener. Raises TimeoutError where the loop does not get to it."""
        asked = asyncio.run_coroutine_threadsafe(self._read(), self._loop)
        try:
            found = asked.result(_ANSWER_SECONDS)
        finally:
            asked.cancel()
        families = {metric: _family(metric) for metric in METRICS}
        for service, readings in found:
            for reading in readings:
                families[reading.metric].add_metric([service, *reading.labels], reading.value)
        return [family for family in families.values() if family.samples]

    async def _read(self) -> list[tuple[str, list[Reading]]]:
        readings = await asyncio.gather(*(each.read() for each in self._services))
        return [(each.service, read) for each, read in zip(self._services, readings, strict=True)]


def _family(metric: Metric) -> _Family:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric.name, metric.description, labels=["service", *metric.labels])


@asynccontextmanager
async def metrics_given_out(
    services: Sequence[ServiceMetrics], host: str, ports: Sequence[int]
) -> AsyncIterator[int | None]:
    """Listen while the block runs, on the first of these ports that is free; the port, or None where none is.

    Then everything goes on without: that nobody can look is no reason to serve nobody.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Services(services, asyncio.get_running_loop()))
    for port in ports:
        try:
            # It asks for the name of the host, which can take its time.
            server, thread = await asyncio.to_thread(start_http_server, port, host, registry)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        _log.info("metrics are given out", address=f"http://{host}:{server.server_port}/metrics")
        try:
            yield server.server_port
        finally:
            # It waits for its thread to notice.
            await asyncio.to_thread(server.shutdown)
            server.server_close()
            thread.join()
        return
    _log.error("no port for metrics is free: this process gives out none", ports=list(ports))
    yield None
