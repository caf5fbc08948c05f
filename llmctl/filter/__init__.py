"""Raw pages to a clean corpus: the FineWeb recipe, a file a step, every dropped document accounted for."""
