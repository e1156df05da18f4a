"""Every number of the README, as a script that prints it and writes JSON."""
