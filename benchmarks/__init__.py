"""What it costs, measured: ``python -m benchmarks`` runs all of it and writes ``docs/explanation/performance.md``."""
