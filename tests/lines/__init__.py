"""Which lines of the code a run of the tests executes, at a fraction of the cost of a trace function."""
