"""Things a person runs: each module is `python -m jobs.NAME --help`."""
