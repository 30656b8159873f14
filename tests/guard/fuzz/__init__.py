"""Generated input: requests that are almost right, tens of thousands in each run, millions in `make fuzz`."""
