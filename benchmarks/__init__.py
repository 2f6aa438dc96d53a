"""What longthought costs, as figures: ``python -m benchmarks.NAME [--quick] [--json]``."""
