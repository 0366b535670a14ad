"""The house: layout, imports, documentation and the checks themselves."""
