"""What tests of several packages share: paths, made-up chains, servers."""
