"""``python -m gogate_py`` is the same command as ``gogate``."""

from gogate_py.cli import main

if __name__ == "__main__":
    main()
