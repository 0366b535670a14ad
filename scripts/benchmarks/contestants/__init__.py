"""Programs that the benchmarks run side by side, each a process of its own."""
