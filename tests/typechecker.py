"""How annotations are checked while tests run: beartype, with int allowed where float stands."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
