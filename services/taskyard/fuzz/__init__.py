"""`./dev fuzz`: requests that nobody means, made from the OpenAPI document and a seed, to a running system.

Whatever is sent, the API answers within its time, never with an error of its own, and logs no traceback.

- `making` makes the request of a number: paths, parameters, headers and bodies, some as the document says, most not.
- `sending` sends it as it is, byte by byte, over connections that stay, and reads what comes back.
- `app` starts a system without workers, so that no command runs, sends, and judges.
"""
