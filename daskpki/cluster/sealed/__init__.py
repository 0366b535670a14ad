"""The sealed scheduler: confined helpers open what clients pickled, and the scheduler opens no pickle (ADR 15)."""
