"""Ordinary phrases, which words are compared with: in their scores, and in their sense."""

from __future__ import annotations

# What ordinary photos show, in the words of those who look for them.
BANK = """
a dog on a lawn; two cats; a horse; birds in the sky; a fish; cows in a field; an elephant; a lion;
a butterfly; a monkey; a child playing; a woman smiling; a man with a beard; a family at a table; a
crowd; a baby; an old couple; a wedding; a portrait; people dancing; a runner; a football match; a
swimmer; skiing; a tennis player; a fisherman; a worker with a helmet; a doctor; a soldier; a cook;
a red car; a truck; a bicycle; a motorcycle; a train; an airplane; a ship; a boat on a lake; a bus;
a tractor; a road; a street at night; a bridge; a railway station; an airport; a harbour; a city
skyline; a church; a castle; a house with a garden; a skyscraper; a farm; a temple; ruins; a tower;
a kitchen; a living room; a bedroom; a bathroom; an office; a classroom; a library; a restaurant; a
shop; a museum; a stage; a hospital; a factory; a staircase; a window; a door; a chair; a sofa; a
lamp; a clock; a telephone; a laptop; a keyboard; a camera; a television; a book; a newspaper; a
map; a painting; a statue; a toy; a ball; a guitar; a piano; a drum; a knife; a bottle; a cup of
coffee; a glass of wine; bread; a cake; pizza; a salad; soup; fruit; vegetables; meat; ice cream; a
dress; shoes; a hat; a bag; a watch; jewellery; glasses; an umbrella; a flag; a mountain; a valley;
a forest; a lake; a river; a waterfall; the sea; a beach; an island; a desert; a field of wheat; a
park; a flower; a tree; mushrooms; grass; snow; ice; rain; clouds; a sunset; the moon; stars; fire;
smoke; fog; a rock; sand; a cave; a snake; a frog; a spider; a bee; a shell; a fence; a wall; a
traffic sign; a bench; a tent; a fountain; a market; fireworks
"""


def bank_texts() -> list[str]:
    """Return the texts of the bank."""
    return [" ".join(text.split()) for text in BANK.split(";")]
