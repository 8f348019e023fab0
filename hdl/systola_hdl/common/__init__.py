"""What any block may be built of: delay lines, skid buffer, credit queue, address generator, layouts, memory ports."""
