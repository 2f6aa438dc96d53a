"""The graphs: how a run and a branch go from node to node."""
