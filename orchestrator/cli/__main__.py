"""``python -m longthought.orchestrator.cli``: the same as the program ``longthought``."""

from longthought.orchestrator.cli import main

if __name__ == "__main__":
    main()
