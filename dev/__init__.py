"""What stands in for the clouds on one machine."""
