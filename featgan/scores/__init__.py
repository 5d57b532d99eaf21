"""Scores of generated images, and the classifiers and features behind them."""
