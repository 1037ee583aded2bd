"""Names that mean nothing, for problems whose words must not give the answer away."""

PEOPLE = (
    *("Alma", "Bruno", "Cora", "Dino", "Edith", "Frida", "Gustav", "Hanna", "Ivo", "Jonas"),
    *("Karin", "Leon", "Mira", "Nils", "Olga", "Paolo", "Quirin", "Rosa", "Stefan", "Tilda"),
)

KINDS = tuple(
    beginning + ending
    for beginning in ("bel", "dar", "fim", "gul", "kov", "mes", "rip", "tas")
    for ending in ("dak", "lo", "nik", "rum", "vet")
)
"""40 kinds of things. Each begins with a consonant, for `a` stands before it, and takes a plain
`s`; none is the beginning of another."""

QUALITIES = (
    *("blue", "bright", "brittle", "cold", "dense", "early", "foggy", "gentle", "hollow", "loud"),
    *("mild", "narrow", "plain", "quick", "round", "salty", "sharp", "shiny", "silent", "slow"),
    *("smooth", "sour", "steep", "striped", "sturdy", "tidy", "tiny", "warm", "wet", "wide"),
)
"""What a thing of a kind may be or not be."""
