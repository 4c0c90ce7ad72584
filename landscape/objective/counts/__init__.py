"""What a loss divides by, held against the count that is assumed or given."""
