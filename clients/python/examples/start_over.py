"""What was lost is done again from the start, since a new session knows nothing of it: `herd serve`, and then

    python start_over.py [http://127.0.0.1:8080]
"""

import sys

from herd_client import Herd, HerdError, PoolFull, SessionLost


def work(herd: Herd) -> str:
    with herd.session() as session:
        for step in ("let x = 40", "x += 2", "x"):
            answer = session.post("/eval", content=step).text
        return answer


with Herd(*sys.argv[1:]) as herd:
    for attempt in range(3):
        try:
            print(work(herd))
            break
        except (SessionLost, PoolFull) as error:
            print(f"attempt {attempt + 1}: {error}", file=sys.stderr)
        except HerdError as error:
            sys.exit(str(error))
