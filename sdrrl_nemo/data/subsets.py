"""The six subsets of the transfer set (paper, section 3.2) and their fixed order in every file and tensor."""

SUBSETS: tuple[str, ...] = ("LL", "TL", "LT", "TT", "mt", "comp")
SUBSET_ID: dict[str, int] = {name: i for i, name in enumerate(SUBSETS)}
