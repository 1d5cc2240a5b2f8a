"""For every test: one thread of arithmetic, so that small networks are not slowed by their own barriers."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
