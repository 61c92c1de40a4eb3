"""What operators see: structured logs and metrics.

`metrics` is not imported here, so that whoever only logs does not pay for prometheus-client.
"""

from provider_core.observability.line_writer import LineWriter
from provider_core.observability.logs import log_access, start_logging

__all__ = ["LineWriter", "log_access", "start_logging"]
