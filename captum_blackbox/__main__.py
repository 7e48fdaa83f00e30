"""``python -m captum_blackbox``: the command line."""

from captum_blackbox.cli import main

if __name__ == "__main__":
    main()
