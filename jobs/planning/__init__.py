"""What `jobs.plan` estimates: work by formula, rates of hardware, and both together."""
