"""The command line ``systola``: commands, their tables and files. Only this room imports typer and rich."""
