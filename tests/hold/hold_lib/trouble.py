"""What the internet sends: clients that vanish, clients that drip, requests that are none. Each kind a thread, until it is told to stop."""
import http.client
import random
import select
import time

from bad_requests import read_cases, run_case
from server_process import audit_bytes, hang_up

from .companion import Companion

TOO_LARGE = 1 << 20  # cases with larger bodies measure this client's own processor time


class Trouble(Companion):
    """A thread that calls one() at this rate; what must not have happened is in wrong."""

    def __init__(self, stage, rate):
        self.stage, self.rate, self.count, self.wrong = stage, rate, 0, []
        self.draw = random.Random(f"{stage.options.seed} {type(self).__name__}")
        super().__init__()

    def work(self):
        while not self.over.wait(self.draw.expovariate(self.rate)):
            try:
                self.one()
                self.count += 1
            except (AssertionError, OSError, http.client.HTTPException) as e:
                self.wrong.append(f"{type(self).__name__}: {e!r}"[:300])


class Malformed(Trouble):
    """Every one is refused with exactly the answer of tests/server/cases; or, when there is no room in the queue to look at it, for that."""

    def __init__(self, stage, rate):
        super().__init__(stage, rate)
        self.crowded_out = 0
        self.cases = [c for n, c in read_cases() if "tiny" not in c["request"].get("path", "") and not n.startswith("body_too_large")]

    def one(self):
        case = self.draw.choice(self.cases)
        try:
            run_case(self.stage.server, case, {"X-Deadline-Ms": "60000"})  # this is not about being in time
        except AssertionError as e:
            if '"reason":"queue_full"' not in str(e):
                raise AssertionError(f"{case['why']}: {e}") from None
            self.crowded_out += 1


class Vanishing(Trouble):
    """Sends a request, whole or in part, and is gone: by FIN or by RST, at once or after a moment."""

    def one(self):
        head, body = audit_bytes(*self.stage.first_image())
        whole = head + body
        cut = len(whole) if self.draw.random() < 0.5 else self.draw.randrange(len(whole))
        s = self.stage.server.connect()
        s.sendall(whole[:cut])
        time.sleep(self.draw.choice((0, 0, 0.001, 0.01, 0.1)))
        hang_up(s) if self.draw.random() < 0.5 else s.close()


class Dripping(Trouble):
    """Slowloris: many connections, each with a byte now and then, of headers or of a body. The server ends them; new ones come."""

    def __init__(self, stage, connections, every=0.5):
        super().__init__(stage, 1)
        self.connections, self.every, self.ended = connections, every, 0

    def begin(self):
        head, body = audit_bytes(*self.stage.first_image())
        s = self.stage.server.connect()
        sent = self.draw.choice((0, 20, len(head) - 1, len(head) + 10))
        s.sendall((head + body)[:sent])
        self.count += 1
        return s, (head + body), sent

    def drip(self, s, whole, sent):
        """The connection as it is afterwards; None: it has been ended."""
        try:
            if select.select([s], [], [], 0)[0] and not s.recv(4096):
                raise ConnectionResetError
            s.sendall(whole[sent:sent + 1])
            return s, whole, sent + 1
        except OSError:
            s.close()
            self.ended += 1
            return None

    def work(self):
        held = []
        while not self.over.wait(self.every):
            held = [h for h in (self.drip(*h) for h in held) if h]
            try:
                while len(held) < self.connections:
                    held.append(self.begin())
            except OSError as e:
                self.wrong.append(f"Dripping: {e!r}")
        for s, _, _ in held:
            s.close()
