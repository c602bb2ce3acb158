"""Make one step or evaluation exist. Nothing here knows which step comes next."""
