"""Reads the lines of bench.py and takes medians and ratios of them."""
import json, statistics, sys
from collections import defaultdict

# The workloads that make one table: the name, the metric, what is shown of it, how it is scaled.
# `up`: more is better.
FIGURES = [
    ("W1", "p50", "W1 p50 us", 1, "%.0f", False),
    ("W1", "p99", "W1 p99 us", 1, "%.0f", False),
    ("W1pin", "p50", "W1 p50 us, one core", 1, "%.1f", False),
    ("W2", "asks", "W2 k asks/s", 1e3, "%.1f", True),
    ("W2", "cpu_s_per_million", "W2 CPU s/M", 1, "%.2f", False),
    ("W3", "tells", "W3 k tells/s", 1e3, "%.0f", True),
    ("W3", "cpu_s_per_million", "W3 CPU s/M", 1, "%.2f", False),
    ("W4", "throughput", "W4 MiB/s", 1, "%.0f", True),
    ("W4", "cpu_s_per_million", "W4 CPU ms/GiB", 1e3 / 1.024e3, "%.0f", False),
    ("W5", "asks", "W5 k asks/s", 1e3, "%.1f", True),
    ("W5", "cpu_s_per_million", "W5 CPU s/M", 1, "%.1f", False),
    ("W5", "server_peak_rss", "W5 RSS MiB", 1, "%.1f", False),
    ("W6", "rss_per_connection", "W6 KiB/conn", 1, "%.1f", False),
    ("W7", "p50", "W7 p50 ms", 1e3, "%.2f", False),
    ("W7", "p99", "W7 p99 ms", 1e3, "%.2f", False),
    ("W7", "stream", "W7 MiB/s", 1, "%.0f", True),
    ("W7", "alone", "W7 MiB/s alone", 1, "%.0f", True),
    ("L1", "ns_per_ask", "L1 ns/ask", 1, "%.0f", False),
    ("L2", "asks", "L2 k asks/s", 1e3, "%.0f", True),
    ("L2", "cpu_s_per_million", "L2 CPU s/M", 1, "%.2f", False),
    ("L3", "tells", "L3 k tells/s", 1e3, "%.0f", True),
    ("L3", "cpu_s_per_million", "L3 CPU s/M", 1, "%.2f", False),
]

# What stands beside the library as a measure, and is not a peer.
LIMITS = ("raw-", "local-tokio", "local-actix")
OURS = ("arpc", "local-arpc")


def is_ours(peer):
    return peer.startswith(OURS)


def is_limit(peer):
    return peer.startswith(LIMITS)


class Results:
    def __init__(self, lines):
        self.values, self.peers, self.head, self.failed = defaultdict(dict), [], {}, set()
        for line in lines:
            r = json.loads(line)
            if "peer" not in r:
                self.head = r
                continue
            if r["peer"] not in self.peers:
                self.peers.append(r["peer"])
            if r["value"] is None:
                self.failed.add((r["peer"], r["workload"]))
                continue
            # Spark's client gives the median instead of the mean
            if r["workload"] == "L1" and r["metric"] == "p50":
                r = {**r, "metric": "ns_per_ask", "value": r["value"] * 1e3}
            self.values[r["peer"], r["workload"], r["metric"]][r["run"]] = r["value"]

    def median(self, peer, workload, metric):
        v = self.values.get((peer, workload, metric))
        return statistics.median(v.values()) if v else None

    def ratio(self, peer, base, workload, metric, over=None):
        """The median, least and greatest of the ratios to `base` within each round. `over` is the
        metric of the base, if it is another one."""
        a = self.values.get((peer, workload, metric), {})
        b = self.values.get((base, workload, over or metric), {})
        both = [a[r] / b[r] for r in a if b.get(r)]
        return (statistics.median(both), min(both), max(both), len(both)) if both else None

    def best_peer(self, workload, metric, up):
        """The best of those that are neither ours nor a limit."""
        found = [(v, p) for p in self.peers if not is_ours(p) and not is_limit(p)
                 if (v := self.median(p, workload, metric)) is not None]
        return (max if up else min)(found, default=(None, None))


def read():
    return Results(sys.stdin)
