"""What bench/run and bench/compare are made of: servers, runs of the load generator, and reports."""
