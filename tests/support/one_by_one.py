"""How tests are handed to the workers of pytest-xdist: one after the other, not in chunks that are
cut before anybody knows what lasts; so all workers end at about the same time."""
from xdist.scheduler.load import LoadScheduling

AT_HAND = 2  # the one that runs, and the next: a worker has to know it to keep its fixtures


class OneByOne(LoadScheduling):
    def _send_tests(self, node, num):
        if not self.node2pending[node] and len(self.pending) > 1:
            # They begin with the longest: what waits behind one of those is not to be long, too.
            self.pending.insert(1, self.pending.pop())
        super()._send_tests(node, max(0, min(num, AT_HAND - len(self.node2pending[node]))))
