"""Suspects that are no file here: an endpoint, a function of the user's, answers that a device gave."""
