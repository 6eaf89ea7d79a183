"""The files of a case, one format a module: a format knows what a case is and how to check one, not where it lies."""
