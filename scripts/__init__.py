"""Programs of this repository: benchmarks, the demo, checks of the tests, pages that are written from the code."""
