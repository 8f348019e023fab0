"""The sequencer: fetches words, decodes instructions, issues them to units, keeps tokens."""
