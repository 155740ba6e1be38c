"""What works beside a run, on a thread of its own, from `with` to the end of its block: work() goes on until self.over is set."""
import threading


class Companion:
    def __init__(self):
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *rest):
        self.over.set()
        self.thread.join()
