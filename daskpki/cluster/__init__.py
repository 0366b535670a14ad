"""Everything that depends on distributed; no other package imports it."""
