# SPDX-License-Identifier: MIT
"""The words of the stories.

All of bAbI task 1's are among them (Weston et al., 2015, "Towards AI-Complete Question Answering"). Every name, and the
first word of every place, is one token of the bundled model's vocabulary, alone and after a space.
"""

from __future__ import annotations

# The names of the bAbI tasks come first.
_NAMES = """
Daniel Mary Sandra John Bill Fred Jeff Julie Jason Antoine Sumit Yann Bernhard Lily Winona Emily Greg Brian Jessica
Gertrude
James Robert Michael David William Richard Joseph Thomas Charles Christopher Matthew Anthony Mark Donald Steven Paul
Andrew Joshua Kevin George Edward Timothy Jacob Ryan Eric Jonathan Stephen Larry Justin Scott Brandon Benjamin Samuel
Frank Patrick Alexander Jack Dennis Jerry Tyler Aaron Adam Nathan Henry Peter Kyle Walter Noah Ethan Liam Lucas Oliver
Leo Max Oscar Hugo Felix Ben Tom Tim Sam Dan Bob Joe Jim Mike Nick Steve Dave Chris Alex Harry Louis Arthur Albert
Simon Martin Philip Victor Vincent Roger Ralph Roy Gary Sean Ian Neil Colin Alan Theo Toby Finn Owen Luke Mason Logan
Elijah Carl Ivan Omar Ali Ahmed Wei Ravi Carlos Pedro Juan Luis Raj Amir Hans Lars Sven Igor Patricia Jennifer Linda
Elizabeth Barbara Susan Sarah Karen Lisa Nancy Betty Margaret Ashley Donna Michelle Carol Amanda Melissa Stephanie
Rebecca Laura Amy Angela Anna Emma Nicole Helen Samantha Katherine Christine Rachel Maria Heather Diane Ruth Olivia
Victoria Kelly Lauren Joan Evelyn Megan Andrea Hannah Martha Gloria Teresa Ann Sara Jean Alice Abigail Julia Sophia
Grace Diana Natalie Charlotte Marie Mia Ella Eva Zoe Chloe Lucy Ava Nina Kate Jane Sofia Eve Ana Rosa Elena Fatima
Aisha Yuki Priya Ingrid Olga Clara Claire Rose Ruby Sally Molly Holly Wendy Tina Vera Iris Fiona Eleanor Isabella
Bella Daisy Tara
"""
NAMES = tuple(_NAMES.split())

# The first words all differ, so the first token already says which place it is. bAbI's places come first.
PLACES = (
    "bathroom", "bedroom", "garden", "hallway", "kitchen", "office", "school", "park", "cinema",
    "airport", "apartment", "attic", "backyard", "bakery", "balcony", "bank", "bar", "barn", "basement", "beach",
    "bookstore", "bridge", "cabin", "cafe", "castle", "cave", "cellar", "church", "city", "classroom", "closet",
    "club", "corridor", "courtyard", "factory", "farm", "field", "forest", "gallery", "garage", "greenhouse", "gym",
    "harbor", "hospital", "hotel", "house", "island", "lab", "laboratory", "lake", "laundry", "library", "lobby",
    "lounge", "mall", "market", "meadow", "mountain", "museum", "nursery", "palace", "pantry", "pharmacy",
    "playground", "pool", "porch", "pub", "restaurant", "river", "roof", "shed", "shop", "stadium", "station",
    "store", "studio", "study", "supermarket", "temple", "terrace", "theater", "theatre", "tower", "town", "tunnel",
    "university", "valley", "village", "warehouse", "workshop", "yard", "zoo",
    "dining room", "living room", "meeting room", "parking lot", "swimming pool", "train station",
)  # fmt: skip

# What may follow a name; "the", the place and a full stop follow it. bAbI's moves come first.
BABI_MOVES = 5
MOVES = (
    "went to", "went back to", "travelled to", "journeyed to", "moved to",
    "came back to", "came to", "cycled to", "drove back to", "drove to", "entered", "flew to", "got to",
    "has gone to", "headed back to", "headed for", "headed to", "hurried back to", "hurried into", "hurried to",
    "is at", "is back in", "is in", "is now in", "jogged to", "journeyed back to", "marched to", "moved back to",
    "moved into", "moved over to", "quickly went to", "raced to", "ran back to", "ran into", "ran off to",
    "ran over to", "ran to", "returned to", "rode to", "rushed into", "rushed to", "sneaked into", "sprinted to",
    "stepped into", "strolled to", "then went to", "traveled back to", "traveled to", "travelled back to",
    "walked back to", "walked into", "walked over to", "walked to", "wandered into", "wandered to", "went down to",
    "went into", "went off to", "went over to", "went straight to", "went up to",
)  # fmt: skip
