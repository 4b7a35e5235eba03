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
