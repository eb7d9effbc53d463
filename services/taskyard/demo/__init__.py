"""The main job shown for real: `./dev demo` starts the whole system in a temporary folder and runs a story on it.

It is a program from outside: it uses the command line, HTTP and `connection.json`, and signals to processes. It draws what
happens as a live table, and ends with 0 only if the history of every task is as expected.

story.py tells what happens, expectations.py what each history must be, screen.py draws,
yard.py talks to the system, app.py wires.
"""
