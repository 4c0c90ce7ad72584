"""The engine of experiments: jobs that resume, claims with their rules, one table."""
