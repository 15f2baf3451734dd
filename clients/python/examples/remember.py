"""A session of the built-in REPL keeps its variables: `herd serve`, and then

    python remember.py [http://127.0.0.1:8080]
"""

import sys

from herd_client import Herd

with Herd(*sys.argv[1:]) as herd, herd.session() as session:
    session.post("/eval", content="let x = 41")
    print(session.post("/eval", content="x + 1").text, "from", session.worker)
