"""The benchmarks: ``python -m benchmarks`` runs all of them and writes ``docs/explanation/performance.md``."""
