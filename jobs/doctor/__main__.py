"""Run the command line."""

from jobs.doctor.cli import main

if __name__ == "__main__":
    main()
