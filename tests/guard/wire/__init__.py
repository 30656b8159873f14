"""What servers make of odd requests, and the guard of that."""
