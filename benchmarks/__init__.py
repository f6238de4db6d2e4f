"""Every part against the libraries that a user would take instead: ``python -m benchmarks [NAME ...]``."""
