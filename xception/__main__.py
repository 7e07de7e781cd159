"""`python -m xception`, and through it `torchrun … -m xception train`."""

from xception.cli.main import main

if __name__ == "__main__":  # processes that a verb starts import this file too
    main()
