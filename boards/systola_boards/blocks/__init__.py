"""What can be synthesised alone, and the table of what each block takes."""
