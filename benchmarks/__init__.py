"""Speed tables: ``python -m benchmarks`` (or ``make bench``) measures, prints and writes ``results/``."""
