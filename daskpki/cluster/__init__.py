"""Everything that knows distributed: the only package that imports it."""
