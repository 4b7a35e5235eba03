"""Phrases and words of `words.py`, written down before any of them was run.

Settings are chosen on the lists of `words_settings.py`, never on these.
"""

FORTY = {
    "buildings": (
        "edifice",
        "headquarters of a bank",
        "an old palace",
        "a block of flats",
        "windows and balconies",
        "glass and concrete",
        "the facade of a museum",
    ),
    "forest": (
        "grove",
        "rainforest",
        "birches",
        "sunlight between tree trunks",
        "ferns and moss",
        "a footpath under old oaks",
        "foliage",
    ),
    "glacier": (
        "crevasse",
        "Antarctica",
        "frozen water",
        "an ice floe",
        "melting ice",
        "a wall of blue ice",
        "arctic landscape",
    ),
    "mountain": (
        "Matterhorn",
        "a ridge",
        "highlands",
        "a massif above the clouds",
        "snow-capped peaks",
        "steep slopes",
        "a panorama of the Rockies",
    ),
    "sea": (
        "shoreline",
        "surf",
        "the Pacific",
        "breakers on the rocks",
        "a calm sea in the evening",
        "swimmers in salt water",
    ),
    "street": (
        "avenue",
        "a pavement with pedestrians",
        "rush hour",
        "a market lane in an old town",
        "parked scooters",
        "crossroads with traffic lights",
    ),
}
# What the photos show of the 40, by the names of their files; they have no forest or glacier.
SCENES_OF_PHOTOS = {
    "buildings": ("church", "stupa", "prison", "mobile_home", "barn", "thatch"),
    "mountain": ("alp",),
    "sea": ("pier", "promontory", "coral_reef", "schooner", "yawl", "container_ship"),
}
DOGS = (
    "Afghan_hound", "Australian_terrier", "Border_collie", "Brabancon_griffon", "Cardigan",
    "English_foxhound", "English_setter", "French_bulldog", "Leonberg", "Newfoundland",
    "Rhodesian_ridgeback", "Scottish_deerhound", "Yorkshire_terrier", "beagle", "bluetick",
    "borzoi", "boxer", "curly-coated_retriever", "flat-coated_retriever", "giant_schnauzer",
    "keeshond", "kelpie", "komondor", "kuvasz", "miniature_pinscher", "redbone", "silky_terrier",
    "standard_schnauzer", "vizsla",
)  # fmt: skip
SNAKES = (
    "garter_snake", "green_mamba", "horned_viper", "king_snake", "rock_python", "thunder_snake",
    "vine_snake",
)  # fmt: skip
# 40 for the photos, each with the names that it means: kinds and synonyms, none of them a class.
FORTY_OF_PHOTOS = {
    "a dog": DOGS,
    "hunting dogs": (
        "Afghan_hound", "beagle", "bluetick", "borzoi", "English_foxhound", "redbone",
        "Scottish_deerhound", "Rhodesian_ridgeback", "vizsla", "English_setter",
        "curly-coated_retriever", "flat-coated_retriever",
    ),
    "terrier": ("Australian_terrier", "Yorkshire_terrier", "silky_terrier"),
    "serpent": SNAKES,
    "a lizard in the grass": ("alligator_lizard", "frilled_lizard", "green_lizard"),
    "songbird": ("robin", "magpie"),
    "wading bird": (
        "bittern", "black_stork", "dowitcher", "little_blue_heron", "oystercatcher", "redshank",
    ),
    "monkey": ("capuchin", "colobus", "patas"),
    "house cat": ("Persian_cat", "tabby"),
    "rodent": ("fox_squirrel", "guinea_pig", "hamster"),
    "a fox": ("Arctic_fox", "grey_fox", "kit_fox", "red_fox"),
    "insect": (
        "cricket", "damselfly", "dragonfly", "lacewing", "ladybug", "leafhopper",
        "sulphur_butterfly", "tiger_beetle", "walking_stick",
    ),
    "arachnid": ("garden_spider", "tarantula", "tick"),
    "toadstool": ("agaric", "bolete", "coral_fungus", "gyromitra"),
    "salamander": ("eft", "axolotl", "European_fire_salamander"),
    "crustacean": ("king_crab", "crayfish", "fiddler_crab"),
    "marsupial": ("wallaby",),
    "fossil": ("trilobite", "triceratops"),
    "fruit": ("banana", "fig", "jackfruit", "orange", "pineapple", "pomegranate"),
    "vegetables": ("cucumber", "spaghetti_squash"),
    "fast food": ("burrito", "hotdog"),
    "pasta with sauce": ("carbonara",),
    "dessert": ("trifle",),
    "bread": ("French_loaf", "bakery"),
    "sailing ship": ("schooner", "yawl"),
    "lorry": ("moving_van", "tow_truck"),
    "automobile": ("sports_car", "racer"),
    "railway": ("freight_car",),
    "house of worship": ("church", "stupa", "altar"),
    "a bridge over a river": ("suspension_bridge", "viaduct"),
    "headgear": ("cowboy_hat", "sombrero"),
    "swimwear": ("maillot", "swimming_trunks"),
    "handbag": ("purse", "mailbag"),
    "musical instrument": ("banjo", "French_horn", "organ"),
    "kitchen appliance": ("dishwasher", "waffle_iron"),
    "crockery": ("plate", "cup"),
    "furniture": ("bookcase", "china_cabinet", "crib", "throne", "park_bench"),
    "artillery": ("cannon",),
    "gym equipment": ("barbell",),
    "groceries": ("shopping_basket", "shopping_cart"),
}  # fmt: skip
# Things that a network of ImageNet's classes can show, in words that are mostly no class names.
KNOWN = (
    "a kitten", "hound", "songbird", "a parrot on a branch", "bees", "spider", "turtle", "a whale",
    "lorry", "a bus in town", "steam engine", "canoe", "plane", "a cyclist's bike", "spectacles",
    "a mug", "wine", "strawberries", "an apple pie", "burger", "piano", "a violin", "drum", "sofa",
    "lamp", "an alarm clock", "a computer keyboard", "mobile phone", "a wedding dress", "boots",
    "hat", "backpack", "an umbrella in the rain", "a football", "lighthouse", "an old castle",
    "bridge over a river", "a volcano", "a waterfall", "flower",
)  # fmt: skip
# What it cannot: notions, feelings, names, figures, sounds, documents, strings of letters.
UNKNOWN = (
    "inflation", "my cousin Peter", "nostalgia", "the theory of relativity", "an invoice",
    "yesterday afternoon", "wqpfk", "human rights", "Beethoven", "a lease agreement", "boredom",
    "the square root of two", "election results", "a headache", "Latin grammar", "stock prices",
    "the smell of rain", "a password", "insurance", "chapter seven", "gravity", "a lullaby",
    "zxcvbnm", "the year 1848", "marketing strategy", "forgiveness", "a diagnosis", "tax return",
    "the letter Q", "loneliness", "an apology", "a job interview", "philosophy", "copyright",
    "GDP per capita", "a rumour", "Monday morning meeting", "the middle ages", "an x-ray of a hand",
    "quantum computing",
)  # fmt: skip
