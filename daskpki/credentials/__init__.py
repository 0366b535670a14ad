"""Sources of a person's or service's credential, and the schedulers' addresses that belong to a cluster."""
