"""Learning: data, corrections, fitting, the gate, when to retrain."""
