"""The HTTP server of every program, and what it asks of whoever connects, before any token was looked at.

uvicorn serves, with httptools; what it leaves without a bound has one here: how large the head of a request is and how long
it may take, how many connections there are, how many of one address, and the files that all this may open.

- `connections` knows who is connected and whose turn it is, and makes room by ending who has let us wait for longest.
- `protocol` is uvicorn's, with these limits; what it refuses is answered in the form of every other problem.
- `headers` are those that every answer bears.
- `open_files` raises what the system allows, and says how many connections fit.
"""
