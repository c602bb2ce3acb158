"""Share paths, made-up chains and servers between tests of several packages."""
