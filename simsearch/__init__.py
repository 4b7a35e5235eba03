"""Image similarity search: a folder of images in, the most similar ones out.

import simsearch as ss

library = ss.embed_dataset("dataset", "outputs")
matches = ss.search(library, "dataset/seg_pred/102.jpg", k=5)
ss.show_matches(matches)
"""

import lazy_loader

__version__ = "0.1.0"

# Names are listed in `__init__.pyi`, and the module of each is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
