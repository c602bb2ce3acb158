"""Write made-up confusion counts as an evaluation stores them."""

from io import BytesIO

import numpy as np
import pyarrow
import pyarrow.parquet

from training.metrics import Confusion

KINDS = (pyarrow.uint32(), pyarrow.uint8(), pyarrow.uint8(), pyarrow.uint32())


def counts_parquet(rows: list[tuple[int, int, int, int]]) -> bytes:
    """Return confusion counts from rows of (image, truth, predicted, pixels), as Parquet."""
    columns = zip(np.array(rows).T, KINDS, strict=True)
    arrays = [pyarrow.array(column, kind) for column, kind in columns]
    out = BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays, names=list(Confusion._fields)), out)
    return out.getvalue()
