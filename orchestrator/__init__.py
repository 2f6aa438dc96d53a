"""Workflows, the graph and its nodes, strategies, the executor, models and replay."""
