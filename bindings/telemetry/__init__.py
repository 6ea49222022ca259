"""OpenTelemetry instruments for Database.stats(); needs the extra `otel`."""

from amberdb.telemetry.instruments import (
    observe,
)

__all__ = [
    "observe",
]
