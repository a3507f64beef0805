"""``python -m nudge_vdb`` is the command line."""

from nudge_vdb.cli import main

if __name__ == "__main__":
    main()
