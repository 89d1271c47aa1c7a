"""Answers to questions in plain words, from the readings of the asking principal."""
