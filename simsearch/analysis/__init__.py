"""Analysis of a library: near-duplicates, query expansion, heat maps, the map."""
