"""The command line: typer commands of a few lines, and how results are drawn."""
