"""Published comparisons as data: what they trained, how, and what they found."""
