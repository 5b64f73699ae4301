"""Each layer of deployed networks against this machine's peak: `scripts/bench_layers`."""
