"""Where a person's or service's credential comes from, and which address belongs to which cluster."""
