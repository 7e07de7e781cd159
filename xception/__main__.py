"""`python -m xception`, and through it `torchrun … -m xception train`."""

from xception.cli.main import main

main()
