"""What people run and submit: each module a verb."""
