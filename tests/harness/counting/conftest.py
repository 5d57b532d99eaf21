"""Fixtures of the tests of counting."""

from inline import here

__all__ = ["here"]
