"""Run many chains, each step once. Nothing here knows how a step is trained."""
