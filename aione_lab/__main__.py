"""``python -m aione_lab``: the command line."""

from aione_lab.cli import main

if __name__ == "__main__":
    main()
