"""The past: what stood at any moment of the log, and why tasks waited then, folded from the log itself.

state.py folds (pure), views.py shows a state as the API's answers (pure), moments.py reads what `?at=` names, travel.py
folds to a moment, off the event loop and with limits; checkpoints.py keeps states on the way, so that every moment is
a bounded fold away; waits.py and story.py tell from events why a task waited and what was decided (pure).
"""
