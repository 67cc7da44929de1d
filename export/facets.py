"""The properties a query may ask for, and the words for each: the vocabulary that sentences.py joins."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facet:
    """Wordings of one property: heads stand alone as (singular, plural) nouns, adjectives go before, phrases after."""

    heads: tuple[tuple[str, str], ...] = ()
    adjectives: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    not_adjectives: tuple[str, ...] = ()
    not_phrases: tuple[str, ...] = ()
    words: tuple[str, ...] = ()  # what people type alone


FACETS: dict[str, Facet] = {
    "spiral": Facet(
        heads=(
            ("spiral galaxy", "spiral galaxies"),
            ("spiral", "spirals"),
            ("spiral-type galaxy", "spiral-type galaxies"),
        ),
        adjectives=("spiral",),
        phrases=("of spiral type", "with spiral structure", "classified as a spiral", "with a spiral pattern"),
        not_adjectives=("non-spiral",),
        not_phrases=(
            "that is not a spiral",
            "without spiral structure",
            "not of spiral type",
            "with no spiral pattern",
        ),
        words=("spiral", "spirals", "spiral structure", "swirling arms of stars", "whirlpool", "stars wound into arms"),
    ),
    "elliptical": Facet(
        heads=(
            ("elliptical galaxy", "elliptical galaxies"),
            ("elliptical", "ellipticals"),
            ("spheroidal galaxy", "spheroidal galaxies"),
        ),
        adjectives=("elliptical", "spheroidal"),
        phrases=(
            "of elliptical type",
            "classified as elliptical",
            "of Hubble type E",
            "that is a featureless ellipsoid",
            "with neither disk nor arms",
            "made of old stars, whose light fades evenly",
        ),
        not_adjectives=("non-elliptical",),
        not_phrases=("that is not elliptical", "not of elliptical type", "which is no elliptical"),
        words=(
            *("elliptical", "ellipticals", "E galaxy", "spheroid", "smooth blob of starlight", "egg-shaped glow"),
            *("ball-shaped swarm of old stars", "light that fades evenly from the center", "old, dead and red"),
            *("nothing but a smooth halo of stars", "round glow without structure"),
        ),
    ),
    "lenticular": Facet(
        heads=(
            ("lenticular galaxy", "lenticular galaxies"),
            ("S0 galaxy", "S0 galaxies"),
            ("lenticular", "lenticulars"),
        ),
        adjectives=("lenticular", "S0"),
        phrases=("of lenticular type", "of type S0", "with a disk but no spiral arms"),
        not_phrases=("that is not lenticular", "not of type S0"),
        words=("lenticular", "S0", "lenticulars"),
    ),
    "irregular": Facet(
        heads=(
            ("irregular galaxy", "irregular galaxies"),
            ("dwarf irregular galaxy", "dwarf irregular galaxies"),
            ("Magellanic irregular", "Magellanic irregulars"),
            ("irregular", "irregulars"),
        ),
        adjectives=("irregular", "irregularly shaped", "amorphous"),
        phrases=(
            "of irregular type",
            "with an irregular shape",
            "without any regular structure",
            "of irregular morphology",
            "with a ragged, chaotic outline",
            "that has no symmetry at all",
        ),
        not_adjectives=("regular",),
        not_phrases=("that is not irregular", "not of irregular type", "with a regular shape"),
        words=(
            "irregular",
            "irregulars",
            "Im",
            "dwarf irregular",
            "Im galaxy",
            "shapeless cloud of stars",
            "ragged patches",
        ),
    ),
    "disk": Facet(
        heads=(("disk galaxy", "disk galaxies"), ("disk", "disks"), ("disc galaxy", "disc galaxies")),
        phrases=("with a disk", "with a stellar disk", "dominated by a disk"),
        not_adjectives=("diskless",),
        not_phrases=("without a disk", "with no disk"),
        words=("disk", "disc", "disks"),
    ),
    "early_type": Facet(
        heads=(("early-type galaxy", "early-type galaxies"), ("early type", "early types")),
        adjectives=("early-type",),
        phrases=("of early type",),
        not_phrases=("that is not early-type",),
        words=("early-type",),
    ),
    "late_type": Facet(
        heads=(("late-type galaxy", "late-type galaxies"), ("late-type spiral", "late-type spirals")),
        adjectives=("late-type",),
        phrases=("of late type",),
        not_phrases=("that is not late-type",),
        words=("late-type",),
    ),
    "sa": Facet(
        heads=(("Sa galaxy", "Sa galaxies"), ("Sa spiral", "Sa spirals")), phrases=("of Hubble type Sa",), words=("Sa",)
    ),
    "sb": Facet(
        heads=(("Sb galaxy", "Sb galaxies"), ("Sb spiral", "Sb spirals")), phrases=("of Hubble type Sb",), words=("Sb",)
    ),
    "sc": Facet(
        heads=(("Sc galaxy", "Sc galaxies"), ("Sc spiral", "Sc spirals")), phrases=("of Hubble type Sc",), words=("Sc",)
    ),
    "sd": Facet(
        heads=(("Sd galaxy", "Sd galaxies"), ("Sd spiral", "Sd spirals")), phrases=("of Hubble type Sd",), words=("Sd",)
    ),
    "smooth": Facet(
        adjectives=("smooth", "featureless"),
        phrases=(
            "with a smooth light profile",
            "without any features",
            "with no visible structure",
            "that is smooth and featureless",
        ),
        not_adjectives=("structured", "featured"),
        not_phrases=("with visible structure", "with features", "that is not smooth"),
        words=("smooth", "featureless"),
    ),
    "edge_on": Facet(
        heads=(("edge-on galaxy", "edge-on galaxies"), ("edge-on disk", "edge-on disks")),
        adjectives=("edge-on", "highly inclined"),
        phrases=(
            "seen edge-on",
            "viewed from the side",
            "seen exactly from the side",
            "in edge-on orientation",
            "inclined by nearly 90 degrees",
        ),
        not_phrases=("not seen edge-on", "that is not edge-on"),
        words=(
            *("edge-on", "edge on", "seen from the side", "needle-like disk", "thin edge-on disk", "spindle"),
            *("flat sliver of stars", "a disk lying on its edge", "very flat disk"),
        ),
    ),
    "face_on": Facet(
        heads=(("face-on galaxy", "face-on galaxies"), ("face-on disk", "face-on disks")),
        adjectives=("face-on", "pole-on"),
        phrases=("seen face-on", "viewed from above", "in face-on orientation", "seen from its pole"),
        not_phrases=("not seen face-on", "that is not face-on"),
        words=("face-on", "face on", "seen from above"),
    ),
    "elongated": Facet(
        adjectives=("elongated", "flattened", "thin", "cigar-shaped"),
        phrases=(
            "with an elongated shape",
            "that is very flattened",
            "with a small axis ratio",
            "stretched along one axis",
        ),
        not_phrases=("that is not elongated",),
        words=("elongated", "flat", "thin", "cigar shape", "needle"),
    ),
    "round": Facet(
        adjectives=("round", "circular"),
        phrases=("with a round shape", "that looks round", "with an axis ratio near one", "of circular outline"),
        not_phrases=("that is not round",),
        words=("round", "circular"),
    ),
    "barred": Facet(
        heads=(("barred galaxy", "barred galaxies"),),
        adjectives=("barred", "barred", "SB"),
        phrases=(
            "with a bar",
            "with a central bar",
            "that has a bar",
            "hosting a stellar bar",
            "with a bar across the center",
            "of type SB",
            "whose arms begin at a bar",
        ),
        not_adjectives=("unbarred", "non-barred", "bar-less", "SA"),
        not_phrases=(
            "without a bar",
            "with no bar",
            "that has no bar",
            "lacking a bar",
            "without any central bar",
            "showing no sign of a bar",
            "of type SA",
            "whose arms begin at the bulge",
        ),
        words=("bar", "barred", "stellar bar", "central bar of stars", "elongated bar at the core"),
    ),
    "strong_bar": Facet(
        adjectives=("strongly barred",),
        phrases=("with a strong bar", "with a long bar", "with a prominent bar", "dominated by a long bar"),
        not_phrases=("without a strong bar",),
        words=("strong bar", "long bar"),
    ),
    "ring": Facet(
        heads=(("ring galaxy", "ring galaxies"), ("ringed galaxy", "ringed galaxies")),
        adjectives=("ringed",),
        phrases=(
            "with a ring",
            "that has a ring",
            "surrounded by a ring",
            "showing a ring of stars",
            "with a ring around the center",
        ),
        not_adjectives=("ringless",),
        not_phrases=("without a ring", "with no ring", "lacking a ring", "that has no ring", "without rings"),
        words=("ring", "rings", "ringed", "circle of stars", "ring-like structure", "annulus of stars"),
    ),
    "inner_ring": Facet(
        phrases=("with an inner ring", "that has an inner ring"),
        not_phrases=("without an inner ring",),
        words=("inner ring",),
    ),
    "outer_ring": Facet(
        phrases=("with an outer ring", "with a faint outer ring", "with an outer pseudo-ring"),
        not_phrases=("without an outer ring",),
        words=("outer ring", "pseudo-ring"),
    ),
    "arms": Facet(
        phrases=("with spiral arms", "that has spiral arms", "showing arms", "with visible arms"),
        not_adjectives=("armless",),
        not_phrases=("without spiral arms", "with no spiral arms", "that has no arms", "lacking arms"),
        words=("spiral arms", "arms"),
    ),
    "strong_arms": Facet(
        adjectives=("grand-design",),
        phrases=("with strong spiral arms", "with prominent arms", "with well-defined arms", "with bright arms"),
        not_phrases=("without strong spiral arms", "with weak arms or none"),
        words=("grand design", "strong arms", "grand-design spiral"),
    ),
    "tight": Facet(
        adjectives=("tightly wound",),
        phrases=("with tightly wound arms", "with tight arms"),
        words=("tightly wound", "tightly wound spiral"),
    ),
    "loose": Facet(
        adjectives=("loosely wound",),
        phrases=("with loosely wound arms", "with open arms"),
        words=("loosely wound", "open spiral arms"),
    ),
    "two_arms": Facet(
        adjectives=("two-armed",),
        phrases=("with two spiral arms", "with two arms"),
        not_phrases=("without exactly two arms",),
        words=("two arms",),
    ),
    "flocculent": Facet(
        adjectives=("flocculent", "patchy"),
        phrases=("with flocculent structure", "with patchy arms", "with a clumpy, patchy disk"),
        not_phrases=("without flocculent structure", "that is not flocculent"),
        words=("flocculent", "patchy"),
    ),
    "knots": Facet(
        adjectives=("star-forming", "clumpy"),
        phrases=("with star-forming regions", "with bright knots", "with giant H II regions", "with hot spots"),
        not_phrases=("without star-forming regions", "without bright knots"),
        words=("star formation", "starburst", "star-forming knots", "clumpy"),
    ),
    "dusty": Facet(
        adjectives=("dusty",),
        phrases=("with dust", "with visible dust", "obscured by dust", "showing dark dust"),
        not_adjectives=("dust-free", "dustless"),
        not_phrases=("without dust", "with no visible dust", "free of dust"),
        words=("dust", "dusty"),
    ),
    "dust_lane": Facet(
        phrases=(
            "with a dust lane",
            "crossed by a dust lane",
            "with a dark lane along its disk",
            "split by a dark dust lane",
        ),
        not_phrases=("without a dust lane", "with no dust lane"),
        words=("dust lane", "dark dust lane"),
    ),
    "large_bulge": Facet(
        adjectives=("bulge-dominated",),
        phrases=("with a large bulge", "with a prominent bulge", "with a dominant central bulge"),
        not_phrases=("without a large bulge", "with a small bulge or none"),
        words=("bulge", "large bulge", "bulge-dominated"),
    ),
    "bulgeless": Facet(
        adjectives=("bulgeless", "pure-disk"),
        phrases=("without a bulge", "with no bulge", "lacking a bulge"),
        not_phrases=("with a bulge", "that has a bulge"),
        words=("bulgeless", "no bulge"),
    ),
    "perturbed": Facet(
        adjectives=("asymmetric", "disturbed", "lopsided", "distorted"),
        phrases=(
            "with a disturbed shape",
            "with asymmetric arms or disk",
            "that looks distorted",
            "with a lopsided disk",
        ),
        not_adjectives=("symmetric", "undisturbed"),
        not_phrases=("with a symmetric shape", "that is undisturbed"),
        words=("asymmetric", "disturbed", "lopsided", "peculiar"),
    ),
    "merger": Facet(
        heads=(
            ("galaxy merger", "merging galaxies"),
            ("merger", "mergers"),
            ("pair of merging galaxies", "merging galaxies"),
            ("interacting galaxy", "interacting galaxies"),
            ("colliding galaxy", "colliding galaxies"),
        ),
        adjectives=("merging", "interacting", "colliding"),
        phrases=(
            "in a merger",
            "merging with another galaxy",
            "in collision with a neighbor",
            "during an interaction",
            "with tidal tails",
            "that collides with another galaxy",
            "distorted by an encounter",
            "with two nuclei",
        ),
        not_adjectives=("isolated",),
        not_phrases=("that is not merging", "without any interaction", "not in a merger"),
        words=(
            *("merger", "merging", "mergers", "interaction", "collision", "two galaxies merging", "tidal tails"),
            *("tidal interaction", "double nucleus", "galaxy collision", "overlapping galaxies", "major merger"),
        ),
    ),
    "companion": Facet(
        phrases=(
            "with a companion",
            "with a close neighbor",
            "next to another galaxy",
            "with a satellite galaxy nearby",
        ),
        not_phrases=("without a companion", "with no close neighbor"),
        words=("companion", "close pair", "galaxy pair"),
    ),
    "star": Facet(
        phrases=("with a bright star in front", "contaminated by a foreground star", "next to a bright star"),
        not_phrases=("without stars in front", "free of foreground stars"),
        words=("foreground star", "bright star", "star", "diffraction spikes"),
    ),
    "lens": Facet(
        heads=(
            ("gravitational lens", "gravitational lenses"),
            ("lensing galaxy", "lensing galaxies"),
            ("strong lens", "strong lenses"),
        ),
        adjectives=("lensing",),
        phrases=(
            "with lensed arcs",
            "with a blue arc around it",
            "with an arc around it",
            "acting as a gravitational lens",
            "with an Einstein ring",
            "that bends the light of a galaxy behind it into arcs",
            "with the stretched image of a distant galaxy beside it",
            "with a luminous arc next to it",
            "with arcs of a background source",
            "that is a lens",
        ),
        not_phrases=("that is not a gravitational lens", "without lensed arcs", "that lenses nothing", "without arcs"),
        words=(
            *("gravitational lens", "lensed arc", "Einstein ring", "strong lensing", "arcs around a galaxy", "lens"),
            *("lens system", "luminous arc", "gravitational arcs", "multiply imaged background galaxy", "lensing"),
            *("lens candidates", "blue arc", "distorted image of a background galaxy", "Einstein cross"),
        ),
    ),
    "red": Facet(
        adjectives=("red", "reddish", "red-colored"),
        phrases=("with a red color", "of red color", "that is red"),
        not_phrases=("that is not red",),
        words=("red", "red galaxy", "reddish"),
    ),
    "blue": Facet(
        adjectives=("blue", "bluish", "blue-colored"),
        phrases=("with a blue color", "of blue color", "that is blue"),
        not_phrases=("that is not blue",),
        words=("blue", "blue galaxy", "bluish"),
    ),
    "bright": Facet(
        adjectives=("bright", "luminous"),
        phrases=("with high surface brightness", "with a bright center"),
        words=("bright", "bright center"),
    ),
    "faint": Facet(
        adjectives=("faint", "dim", "low-surface-brightness"),
        phrases=("with low surface brightness", "that is barely visible"),
        words=("faint", "dim", "low surface brightness"),
    ),
}


def wordings() -> list[str]:
    """Return every wording of every facet: what the text encoder is taught is said in these words."""
    return [
        text
        for facet in FACETS.values()
        for text in (
            *(head for pair in facet.heads for head in pair),
            *(*facet.adjectives, *facet.phrases, *facet.not_adjectives, *facet.not_phrases, *facet.words),
        )
    ]


NAMES = tuple(FACETS)
INDEX = {name: number for number, name in enumerate(NAMES)}
