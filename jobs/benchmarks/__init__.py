"""What `jobs.benchmark` measures: a file each, with `Options`, `measure` and `table_of`."""
