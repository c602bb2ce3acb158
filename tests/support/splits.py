"""Open a split of a dataset as training sees it, without a store."""

from pathlib import Path

from training.data.shards import Index, LocalSplit, Manifest


def open_split(manifest: Manifest, split: str, folder: Path) -> LocalSplit:
    """Return a split whose shards and index lie in `folder`."""
    files = manifest.splits[split]
    index = Index.load(folder / f"{files.index.sha256}.parquet", len(manifest.classes))
    shards = tuple(folder / f"{shard.sha256}.arrow" for shard in files.shards)
    return LocalSplit(index, shards, manifest.classes, files.content)
