from hypothesis import settings

# No deadline per example: a busy machine is slow, and that is no fault of the code.
settings.register_profile("client", deadline=None)
settings.load_profile("client")
