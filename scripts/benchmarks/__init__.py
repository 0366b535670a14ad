"""The side-by-side benchmarks behind docs/benchmarks.md; `scripts/bench` runs them."""
