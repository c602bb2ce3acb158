"""The command line."""

from jobs.doctor.cli import command

if __name__ == "__main__":
    command()
