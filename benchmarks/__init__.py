"""Every number of the README as a script: `python -m benchmarks.NAME --json FILE`."""
