"""What the daemon says of itself: metrics, drift, readiness, HTTP."""
