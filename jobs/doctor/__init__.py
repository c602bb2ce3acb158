"""Check that this machine and its cluster can work: `python -m jobs.doctor`."""
