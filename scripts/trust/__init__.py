"""How far the report's verdicts can be trusted: `scripts/bench_trust`."""
