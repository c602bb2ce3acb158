"""Run the command line."""

from jobs.campaign.cli import main

if __name__ == "__main__":
    main()
