"""The past: what stood at any moment of the log, and why tasks waited then, folded from the log itself.

questions.py answers what `?at=` asks, explaining.py why a task is where it is. travel.py folds to a moment (moments.py),
off the event loop and with limits, by folding.py; checkpoints.py keeps states on the way, which keeping.py looks after, so
that every moment is a bounded fold away. Pure are: state.py, the fold; views.py, surroundings.py and selecting.py, which show
a state as the API's answers; waits.py, which watches a task wait; steps.py, wording.py and story.py, which tell its story.
"""
