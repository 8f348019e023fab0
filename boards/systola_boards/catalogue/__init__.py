"""The boards: platform, preset, how each is loaded and reached; and those whose tools are not run here."""
