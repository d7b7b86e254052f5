"""Data sets for training and testing, written from the archives that SR papers name."""
