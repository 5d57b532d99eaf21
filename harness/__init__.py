"""Run sweeps on Ray: everything that uses Ray, files or the terminal.

Sets the environment variables that Ray reads when it is imported; this package comes first.
"""

import os
from pathlib import Path

CURRENT_CLUSTER = Path("/tmp/ray/ray_current_cluster")
"""Written by `ray start` (so by `ray up`), removed by `ray stop`."""

for _name, _value in {
    # Ray reports once even that reports are off, unless the address is unreachable.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
    # The monitor kills a run when memory is short, and Tune fails with it.
    "RAY_memory_monitor_refresh_ms": "0",
    # Under `uv run`, Ray would copy the whole working folder to each of its workers.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Without it, C++ messages about our actors reach the screen past log_to_driver.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # A task that is asked for before `connect` is an error, not an instance of Ray's own choice.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}.items():
    os.environ.setdefault(_name, _value)

_asked = os.environ.get("RAY_ADDRESS", "").strip()
if _asked == "local" or (_asked in ("", "auto") and not CURRENT_CLUSTER.exists()):
    # Ray then uses 127.0.0.1 as this node's address, as on a Mac: no port is open to others.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
