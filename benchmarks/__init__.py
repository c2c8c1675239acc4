"""What `make bench` and `make accuracy` run."""
