"""Times hawqtvm against other INT8 engines on one machine, with the same networks: `scripts/bench_peers`."""
