"""Faults of the machine, driven from outside: kills, power cuts, full and broken disks, lost events."""
