"""Plan, run and watch a campaign: `python -m jobs.campaign`."""
