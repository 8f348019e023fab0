"""Programs assembled by hand or at random."""
