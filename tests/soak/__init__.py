"""A real server under mixed load for a given time: wrong answers, lost requests, and resources that grow."""
