"""What all tests share."""

from hypothesis import settings

# How long a case takes is the machine's business, and no assertion's.
settings.register_profile("featgan", deadline=None)
settings.load_profile("featgan")
