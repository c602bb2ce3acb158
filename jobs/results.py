"""Write the tables of a page of results from the scores kept beside it: `make results`.

With --store, first read what the store has of each campaign on the page, and keep its scores in a
file of the campaign's name. A chain that the store lacks stays as the file has it. A file is never
replaced by one with fewer chains. Exit code 1: the text of the page quotes numbers that its tables
do not have; they are listed.
"""

from collections.abc import Sequence
from pathlib import Path

import tyro

from jobs.errors import user_errors
from jobs.options import ChainOptions
from orchestrator.store.base import Store
from training.config import InputError


def results(
    store: str | None = None,
    page: Path = Path("docs/results.md"),
    scores: Path = Path("docs/results"),
    encoder_weights: tuple[str, ...] = (),
) -> None:
    """Make the tables of a page anew.

    Args:
        store: Folder or s3://bucket/prefix to read scores from; by default only the files are read.
        page: The page, in Markdown. Comments in it say which tables it has.
        scores: Folder of the files with each campaign's scores.
        encoder_weights: The pretrained weights that the campaigns on photos were run with.
    """
    from orchestrator.records.store_version import open_checked_store
    from orchestrator.report.kept_scores import read_kept
    from orchestrator.report.results_page import campaigns_of, fill, loose_numbers

    if not page.is_file():
        raise InputError(f"there is no page {page}: run this at the root of the repository")
    text = page.read_text(encoding="utf-8")
    if store is not None:
        opened = open_checked_store(store)
        for campaign in campaigns_of(text):
            print(_refresh(campaign, opened, scores, encoder_weights))
    text = fill(text, lambda campaign: read_kept(campaign, scores))
    page.write_text(text, encoding="utf-8")
    print(f"{page}: {len(campaigns_of(text))} campaigns")
    loose = loose_numbers(text)
    if loose:
        print("numbers of the text that no table of their section has:", *loose, sep="\n  ")
        raise SystemExit(1)


def _refresh(name: str, store: Store, folder: Path, weights: tuple[str, ...]) -> str:
    """Keep what the store has of a campaign, unless the file has more; say what was done."""
    from jobs.open_campaign import open_campaign
    from orchestrator.planning.campaign_plan import plan_tree
    from orchestrator.records.repository import Repository
    from orchestrator.report.campaign_results import load_campaign_results
    from orchestrator.report.kept_scores import CONVENTION, keep, kept_path, read_kept, write_kept

    options = ChainOptions(encoder_weights=_fitting(name, weights))
    with open_campaign(name, options, store) as opened:
        tree = plan_tree(opened.campaign, opened.planner)
    path = kept_path(name, folder)
    before = read_kept(name, folder) if path.exists() else None
    result = load_campaign_results(opened.campaign, tree, Repository(store), CONVENTION)
    kept = keep(result, before)
    if before and kept.published < before.published:
        return (
            f"{name}: left as it is, for the file has {before.published} chains, and of today's "
            f"campaign file and store only {kept.published}"
        )
    return f"{name}: {kept.published} chains to {write_kept(kept, folder)}"


def _fitting(campaign: str, weights: tuple[str, ...]) -> tuple[str, ...]:
    """Return the weights for a campaign on photos; the digits' encoder has none."""
    from jobs.campaigns import SHIPPED
    from orchestrator.planning.campaign_file import load_campaign

    if not weights:
        return ()
    encoders = {chain.model.encoder for chain in load_campaign(campaign, SHIPPED).chains}
    return () if encoders == {"tiny"} else weights


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.cli(results, prog="python -m jobs.results", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
