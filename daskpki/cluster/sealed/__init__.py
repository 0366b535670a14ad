"""The sealed scheduler: what clients pickled is opened by a confined helper, and never by the scheduler (ADR 15)."""
