"""Other people's clients under the same faults: cases, the driver that each client runs in, and the page."""
