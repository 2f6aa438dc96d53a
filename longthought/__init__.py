"""longthought: an orchestrator for reasoning at inference time."""
