"""Run and submit jobs. Each module is a verb of the command line."""
