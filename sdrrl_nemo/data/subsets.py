"""The six subsets of one language pair (paper, section 3.2) and their fixed order in every file and tensor."""

SUBSETS: tuple[str, ...] = ("LL", "TL", "LT", "TT", "mt", "comp")
