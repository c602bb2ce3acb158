"""Complete chains as `jobs.train` does."""

from jobs.open_chain import open_chain
from jobs.train import Options
from orchestrator.planning.chain import Chain
from orchestrator.store.base import Store


def complete(chain: Chain, options: Options, store: Store) -> Chain:
    """Return the chain with what the options name, which is stored."""
    with open_chain(chain, options, store) as opened:
        opened.publish(store)
        return opened.chain
